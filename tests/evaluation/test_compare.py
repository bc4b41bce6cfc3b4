"""Sweeps side by side: pairs, tests, verdicts, and what only one of them has."""

import itertools
import math

import numpy as np
import pytest
from compare_samples import row, spread
from scipy.stats import rankdata

from evaluation.compare import COLUMNS, compare, holm, signed_rank
from evaluation.compare_files import cells, markdown, save, signed
from evaluation.table import from_parquet, validate

LEVELS = [30.0, 31.0, 29.5, 30.5, 32.0, 28.0, 31.5, 30.2]
GAINS = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1]
BETTER = [level + gain for level, gain in zip(LEVELS, GAINS, strict=True)]


def compared(first, other, **options):
    return compare({"A": validate(first), "B": validate(other)}, **options)


def only(rows, **where):
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_difference_is_paired_by_patient_with_everything_behind_it():
    found = compared(spread(LEVELS), spread(BETTER))
    assert tuple(found.columns) == COLUMNS
    line = only(found)
    assert (line["first"], line["run"], line["pairs"]) == ("A", "B", 8)
    assert (line["patients_first"], line["patients"]) == (8, 8)
    assert line["mean_first"] == pytest.approx(np.mean(LEVELS))
    assert line["mean"] == pytest.approx(np.mean(BETTER))
    assert line["delta"] == pytest.approx(0.45)
    assert 0.25 < line["low"] < 0.45 < line["high"] < 0.65  # of the difference, not of patients that differ by dB
    assert line["p"] == pytest.approx(2 / 2**8)
    assert (line["verdict"], line["reason"]) == ("better", "")


def test_only_patients_and_cases_of_both_are_paired_and_each_patient_counts_once():
    first = [row(1, patient="P1"), row(3, patient="P1", case="again"), row(10, patient="P2"), row(99, patient="P3")]
    other = [row(2, patient="P1"), row(6, patient="P1", case="again"), row(50, patient="P1", case="new"),
             row(12, patient="P2", seed=0), row(16, patient="P2", seed=1), row(99, patient="P4")]  # fmt: skip
    line = only(compared(first, other))
    assert (line["pairs"], line["patients_first"], line["patients"]) == (2, 3, 3)
    assert (line["mean_first"], line["mean"], line["delta"]) == (6, 9, 3)


def exact_signed_rank(difference):
    """Every assignment of signs to the ranks, counted."""
    ranks = rankdata(np.abs(difference))
    sums = [abs(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return np.mean(np.array(sums) >= abs(np.dot(np.sign(difference), ranks)) - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_test_is_wilcoxons(seed):
    difference = np.random.default_rng(seed).normal(0.4, 1, 9)
    assert signed_rank(difference) == pytest.approx(exact_signed_rank(difference))


def test_nothing_is_tested_where_no_patient_differs_or_only_one_is_there():
    assert math.isnan(signed_rank(np.zeros(9)))
    assert math.isnan(signed_rank(np.array([3.0])))


def test_holm_by_hand():
    corrected = holm(np.array([0.04, math.nan, 0.01, 0.03, 0.9]))
    np.testing.assert_allclose(corrected, [0.09, math.nan, 0.04, 0.09, 0.9])  # ×2 but not below ×3 of the one before
    assert holm(np.array([math.nan])).shape == (1,)


def test_holm_is_the_level_at_which_a_step_down_procedure_rejects():
    p = np.random.default_rng(1).uniform(0, 0.2, 12)

    def rejected(level):
        order, out = np.argsort(p), set()
        for step, index in enumerate(order):
            if p[index] > level / (len(p) - step):
                break
            out.add(int(index))
        return out

    corrected = holm(p)
    for level in (0.01, 0.05, 0.2, 0.5, 0.9):
        assert rejected(level) == set(np.flatnonzero(corrected <= level).tolist())


def test_the_correction_is_over_the_rows_of_two_sweeps():
    many = [line for number in range(10) for line in spread(LEVELS, setting=f"s{number}")]
    more = [line for number in range(10) for line in spread(BETTER, setting=f"s{number}")]
    found = compared(many, more)
    assert found["p_holm"].to_numpy() == pytest.approx(10 * 2 / 2**8)
    assert set(found["verdict"]) == {"no difference"}  # one such row alone is better


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"metric": "psnr"}, "better"),
        ({"metric": "rmse"}, "worse"),
        ({"metric": "seam_ratio"}, "differs"),
        ({"method": "noisy"}, "differs"),
        ({"setting": "t=950 contrast 0 HU"}, "differs"),
    ],
)
def test_a_verdict_knows_which_way_is_good(more, verdict):
    line = only(compared(spread(LEVELS, **more), spread(BETTER, **more), all_metrics=True))
    assert line["verdict"] == verdict


def test_five_pairs_are_too_few_and_equal_sweeps_do_not_differ():
    assert only(compared(spread(LEVELS[:5]), spread(BETTER[:5])))["verdict"] == "too few pairs"
    equal = only(compared(spread(LEVELS), spread(LEVELS)))
    assert (equal["delta"], equal["verdict"]) == (0, "no difference")
    assert math.isnan(equal["p"])


def test_noise_is_no_difference():
    other = [level + (-1) ** index for index, level in enumerate(LEVELS)]
    assert only(compared(spread(LEVELS), spread(other)))["verdict"] == "no difference"


def test_units_and_extractors_never_mix():
    first = [*spread(LEVELS, unit="dB (against image)"), row(0.1, "ours", "", task="synthesis", metric="kid[med3d]")]
    other = [
        *spread(BETTER, unit="dB (against noise_free)"),
        row(0.2, "ours", "", task="synthesis", metric="kid[rand]"),
    ]
    found = compared(first, other)
    assert (found["pairs"] == 0).all()
    assert found["delta"].isna().all()
    assert only(found, unit="dB (against image)")["reason"] == "B has it in dB (against noise_free)"
    assert only(found, metric="kid[rand]")["reason"] == "A has no metric 'kid[rand]' here"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"task": "anomaly"}, "B has no task 'denoising'"),
        ({"region": "abdomen"}, "B has no region 'chest' here"),
        ({"setting": "sigma=0.3"}, "B has no setting 'sigma=0.15' here"),
        ({"method": "tv"}, "B has no method 'ours-mean' here"),
        ({"dataset": "idc"}, "B has it on idc"),
        ({"patient": "Q"}, "the two have no patient in common"),
    ],
)
def test_what_one_sweep_lacks_says_why(other, reason):
    found = compared([row(1.0)], [row(2.0, **other)])
    line = found.iloc[0]
    assert (line["mean_first"], line["pairs"], line["patients_first"]) == (1.0, 0, 1)
    assert math.isnan(line["delta"])
    assert line["reason"] == reason
    assert len(found) == (1 if "patient" in other else 2)


@pytest.mark.parametrize("where", [{}, {"region": "", "setting": "", "method": "", "metric": ""}])
def test_what_could_not_be_measured_says_the_sweeps_own_reason(where):
    failed = row(None, reason="the task failed (KeyError)") | where
    line = only(compared([row(1.0)], [failed]))
    assert line["reason"] == "not measured in B: the task failed (KeyError)"


def test_a_number_of_a_whole_set_has_a_difference_but_no_test():
    first, other = (row(v, "ours", "", task="synthesis", metric="kid", patients=9) for v in (0.2, 0.05))
    line = only(compared([first], [other]))
    assert line["delta"] == pytest.approx(-0.15)
    assert (line["pairs"], line["verdict"]) == (0, "not paired")
    assert "whole set" in line["reason"]


def test_the_leading_metrics_alone_or_all_of_them_and_filters():
    first = [*spread(LEVELS, metric="psnr_gain"), *spread(LEVELS, metric="ssim"), *spread(LEVELS, "tv", metric="ssim"),
             *spread(LEVELS, task="superresolution")]  # fmt: skip
    assert set(compared(first, first)["metric"]) == {"psnr_gain", "psnr"}
    assert len(compared(first, first, all_metrics=True)) == 4
    assert set(compared(first, first, all_metrics=True, methods=["tv"])["method"]) == {"tv"}
    assert set(compared(first, first, tasks=["superresolution"])["task"]) == {"superresolution"}


def test_every_sweep_is_compared_with_the_first():
    tables = {name: validate(spread(values)) for name, values in (("A", LEVELS), ("B", BETTER), ("C", LEVELS))}
    found = compare(tables)
    assert list(zip(found["first"], found["run"], found["verdict"], strict=True)) == [
        ("A", "B", "better"), ("A", "C", "no difference"),
    ]  # fmt: skip


def test_saved_files_hold_the_same_rows(tmp_path):
    found = compared([*spread(LEVELS), row(1, metric="psnr_gain|odd")], spread(BETTER), all_metrics=True)
    csv, parquet, text = save(found, ["A: tiny"], tmp_path / "new")
    assert from_parquet(parquet.read_bytes()).equals(found)
    assert len(csv.read_text().splitlines()) == 1 + len(found)
    lines = text.read_text().splitlines()
    assert "- A: tiny" in lines
    assert (
        "| chest · sigma=0.15 | ours-mean | 30.34 | 30.79 | +0.450 | [+0.288, +0.612] | 0.0078 | 8 | better |" in lines
    )
    assert markdown(found, []).count("psnr_gain|odd") == 1


def test_signs_are_typographic():
    assert (signed(1.5), signed(-1.5), signed(0.0)) == ("+1.50", "−1.50", "0.000")
    assert cells(only(compared([row(1.0)], [row(2.0, patient="Q")])))[-1] == "the two have no patient in common"


def test_numbers_of_sets_of_other_sizes_are_not_compared():
    first, other = (row(0.2, "ours", "", task="synthesis", metric="kid", patients=size) for size in (9, 20))
    line = only(compared([first], [other]))
    assert math.isnan(line["delta"])
    assert (line["patients_first"], line["patients"]) == (9, 20)
    assert (line["verdict"], line["reason"]) == ("", "numbers of sets of 9 and 20 patients")
