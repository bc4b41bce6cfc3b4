"""Who is promoted: better beyond noise by a declared metric, worse by none, and never without a reason."""

import numpy as np
import pytest

from evaluation.config import Checkpoint
from evaluation.promotion import PromotionConfig, Rule, decide, gains_by_patient
from evaluation.table import validate

HELD, NEW = (Checkpoint(base=f"runs/pretrain/{letter * 32}") for letter in "hn")
PSNR = Rule(task="superresolution", metric="psnr")
ERROR = Rule(task="synthesis", metric="organ_hu_error")
CONFIG = PromotionConfig(rules=(PSNR, ERROR))


def rows(rule, checkpoint, values, dataset="x"):
    where = {"task": rule.task, "metric": rule.metric, "method": rule.method, "dataset": dataset, "region": "chest"}
    where |= {"checkpoint": checkpoint.name, "unit": "1", "setting": "s"}
    return [{**where, "case": f"c{i}", "patient": f"p{i}", "value": value} for i, value in enumerate(values)]


def table(psnr_gain=0.0, error_gain=0.0, noise=0.1, patients=10, dataset="x"):
    """A champion, and a candidate that is better by so much, with noise per patient."""
    rng = np.random.default_rng(1)
    base, more = rng.normal(30, 3, patients), rng.normal(0, noise, (2, patients))
    return validate(
        rows(PSNR, HELD, base, dataset)
        + rows(PSNR, NEW, base + psnr_gain + more[0], dataset)
        + rows(ERROR, HELD, base, dataset)
        + rows(ERROR, NEW, base - error_gain + more[1], dataset)
    )


@pytest.mark.parametrize(
    ("gains", "promoted", "sentence"),
    [
        ({"psnr_gain": 1.0}, True, "better beyond noise: superresolution psnr ours +"),
        ({"error_gain": 1.0}, True, "better beyond noise: synthesis organ_hu_error ours +"),
        ({}, False, "no difference beyond noise"),
        ({"psnr_gain": 1.0, "noise": 8.0}, False, "no difference beyond noise"),
        ({"psnr_gain": 1.0, "error_gain": -1.0}, False, "worse beyond noise: synthesis organ_hu_error"),
        ({"psnr_gain": -1.0}, False, "worse beyond noise: superresolution psnr"),
        ({"psnr_gain": 1.0, "patients": 4}, False, "no declared metric has 5 patients measured with both (at most 4)"),
    ],
)
def test_the_place_is_taken_only_by_what_is_better_and_nowhere_worse(gains, promoted, sentence):
    decided, reason = decide(table(**gains), NEW, HELD, CONFIG)
    assert decided is promoted
    assert sentence in reason


def test_a_reason_gives_gain_interval_and_patients():
    _, reason = decide(table(psnr_gain=1.0), NEW, HELD, CONFIG)
    assert "10 patients" in reason
    assert "[" in reason


def test_only_declared_data_sets_regions_and_settings_count():
    better, worse = table(psnr_gain=1.0, dataset="x"), table(psnr_gain=-3.0, dataset="y")
    both = validate([*better.to_dict("records"), *worse.to_dict("records")])
    assert decide(both, NEW, HELD, CONFIG)[0] is False
    assert decide(both, NEW, HELD, CONFIG.replace(datasets=("x",)))[0] is True
    elsewhere = CONFIG.replace(rules=(PSNR.replace(region="abdomen"),))
    assert decide(better, NEW, HELD, elsewhere)[0] is False


def test_more_rules_make_a_promotion_by_chance_no_likelier():
    """Sixty candidates that are no better, ten rules each: as few pass as would by one rule."""
    rules = tuple(PSNR.replace(setting=f"s{i}") for i in range(10))
    rng, passed = np.random.default_rng(0), 0
    for _ in range(60):
        made = []
        for rule in rules:
            base, noise = rng.normal(30, 3, 30), rng.normal(0, 1, 30)
            for checkpoint, values in ((HELD, base), (NEW, base + noise)):
                made += [row | {"setting": rule.setting} for row in rows(rule, checkpoint, values)]
        passed += decide(validate(made), NEW, HELD, CONFIG.replace(rules=rules))[0]
    assert passed <= 6


def test_the_first_of_all_is_champion_where_anything_declared_was_measured():
    assert decide(table(), NEW, None, CONFIG) == (
        True,
        "there was no champion; measured: superresolution psnr ours, synthesis organ_hu_error ours",
    )
    nothing = validate([{"task": "denoising", "metric": "psnr", "method": "ours", "value": 1, "checkpoint": NEW.name}])
    assert decide(nothing, NEW, None, CONFIG) == (False, "none of the declared metrics was measured")


@pytest.mark.parametrize("column", ["dataset", "region", "setting", "unit", "case", "seed"])
def test_gains_pair_only_what_was_measured_alike(column):
    held, own = validate(rows(PSNR, HELD, [30.0, 31.0])), validate(rows(PSNR, NEW, [31.0, 33.0]))
    assert gains_by_patient(held, own, 1).tolist() == [1, 2]
    assert gains_by_patient(held, own, -1).tolist() == [-1, -2]
    other = own.assign(**{column: 1 if column == "seed" else "other"})
    assert len(gains_by_patient(held, other, 1)) == 0


def test_a_patients_gains_are_averaged_so_that_a_patient_counts_once():
    held = validate([row | {"setting": s} for s in "ab" for row in rows(PSNR, HELD, [30.0, 30.0])])
    own = held.assign(value=[31.0, 30.0, 33.0, 30.0])
    assert gains_by_patient(held, own, 1).tolist() == [2, 0]
