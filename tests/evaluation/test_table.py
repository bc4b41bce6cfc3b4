"""The tidy table: rows in, means with intervals by patient out, nothing lost."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from evaluation.table import COLUMNS, aggregate, bootstrap, from_parquet, to_parquet, validate
from evaluation.verdict import clear_winner, format_table, kind, number, primary_metrics, ranked


def row(value=1.0, method="ours-mean", patient="P1", case=None, **more):
    base = {"task": "denoising", "dataset": "phantom", "region": "chest", "setting": "sigma=0.15", "metric": "psnr"}
    return {**base, "unit": "dB", "method": method, "patient": patient, "case": case or patient, "value": value, **more}


def spread(method, centre, patients=8):
    return [row(centre + 0.1 * index, method, f"P{index}") for index in range(patients)]


def test_every_column_is_there_and_typed_and_left_out_text_is_empty():
    table = validate([{"task": "anomaly", "metric": "auroc", "value": 1}])
    assert tuple(table.columns) == COLUMNS
    assert table.loc[0, "reason"] == ""
    assert str(table["value"].dtype) == "float64"
    assert str(table["seed"].dtype) == "int64"


def test_the_order_of_measuring_changes_nothing():
    rows = [*spread("ours-mean", 30), *spread("tv", 29), row(math.nan, task="synthesis", reason="no map")]
    assert to_parquet(validate(rows)) == to_parquet(validate(rows[::-1]))


def test_the_table_survives_parquet():
    table = validate([*spread("tv", 29), row(None, reason="no reference")])
    assert from_parquet(to_parquet(table)).equals(table)


def test_a_value_that_is_no_number_becomes_a_reason():
    table = validate([row(math.nan), row(math.inf, patient="P2"), row(None, patient="P3", reason="no reference")])
    assert list(table["reason"]) == ["the metric is not a number here", "the metric is infinite here", "no reference"]
    assert table["value"].isna().all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(None), "needs a reason"),
        ({**row(), "colour": "red"}, "unknown columns"),
        ({"metric": "psnr", "value": 1}, "lacks its task"),
    ],
)
def test_a_row_that_says_nothing_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        validate([bad])


def test_a_patient_counts_once_however_many_cts_there_are():
    table = validate([row(10, case="a"), row(20, case="b"), row(30, patient="P2")])
    (line,) = aggregate(table).to_dict("records")
    assert (line["mean"], line["cases"], line["patients"]) == (22.5, 3, 2)


def test_the_interval_holds_the_mean_narrows_with_patients_and_repeats_itself():
    values = np.random.default_rng(1).normal(0, 1, 200)
    low, high = bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.1)
    assert high - low < np.subtract(*bootstrap(values[:20])[::-1])
    assert bootstrap(values) == (low, high)


def test_one_patient_or_a_whole_set_has_no_interval():
    lines = aggregate(validate([row(5), row(7, method="tv", patient="", case="")])).set_index("method")
    assert lines["low"].isna().all()
    assert list(lines["mean"]) == [5, 7]
    assert list(lines["patients"]) == [1, 0]


def test_what_failed_is_counted_beside_what_was_measured():
    table = validate([row(5), row(None, patient="P2", reason="no reference")])
    (line,) = aggregate(table).to_dict("records")
    assert (line["mean"], line["failed"], line["reason"]) == (5, 1, "no reference")


def test_the_noise_free_and_the_noisy_reference_never_mix():
    table = validate([row(5, unit="dB (against noise_free)"), row(9, unit="dB (against image)")])
    assert sorted(aggregate(table)["mean"]) == [5, 9]


def test_a_method_is_ours_a_baseline_or_a_yardstick():
    assert [kind(m) for m in ("ours", "ours-mean", "tv", "noisy", "ceiling")] == [
        "ours",
        "ours",
        "baseline",
        "reference",
        "reference",
    ]


def test_a_winner_needs_an_interval_that_touches_no_rivals():
    far = aggregate(validate([*spread("ours-mean", 30), *spread("tv", 28), *spread("ceiling", 50)]))
    near = aggregate(validate([*spread("ours-mean", 30), *spread("tv", 29.9)]))
    single = aggregate(validate([row(30), row(20, "tv")]))
    assert (clear_winner(far), clear_winner(near), clear_winner(single)) == ("ours-mean", "", "")
    less = aggregate(validate([r | {"metric": "rmse"} for r in (*spread("ours-mean", 30), *spread("tv", 28))]))
    assert clear_winner(less) == "tv"


def test_nobody_wins_where_there_is_nothing_to_find():
    rows = [*spread("ours-mean", 30), *spread("tv", 28)]
    painted = {contrast: f"t=950 contrast {contrast} HU" for contrast in ("0", "-20")}
    won = {c: clear_winner(aggregate(validate([r | {"setting": name} for r in rows]))) for c, name in painted.items()}
    assert won == {"0": "", "-20": "ours-mean"}


def test_ours_come_first_then_baselines_best_first():
    rows = aggregate(validate([row(29, "tv"), row(20, "noisy"), row(31, "nlm"), row(1, "ours-a"), row(2, "ours-b")]))
    assert list(ranked(rows)["method"]) == ["ours-b", "ours-a", "nlm", "tv", "noisy"]


def test_the_leading_metric_is_the_tasks_own_or_the_first_one():
    assert primary_metrics("denoising", ["ssim", "psnr", "psnr_gain"]) == ["psnr_gain"]
    assert primary_metrics("anomaly", ["px_share", "auroc_other"]) == ["auroc_other"]
    assert primary_metrics("new-task", ["strength"]) == ["strength"]
    assert primary_metrics("new-task", []) == []


def test_the_terminal_shows_ours_beside_baselines_and_why_a_number_is_missing():
    rows = [*spread("ours-mean", 30), *spread("tv", 28), *spread("noisy", 22)]
    rows += [{"task": "lesion-generation", "value": None, "reason": "no case has a lesion"}]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(format_table(aggregate(validate(rows))))
    text = console.export_text()
    assert "ours-mean 30.35 [30.19, 30.50]" in text
    assert "tv\N{NO-BREAK SPACE}28.35 · noisy\N{NO-BREAK SPACE}22.35" in text
    assert "no case has a lesion" in text


def test_numbers_are_short():
    values = (31.436, 0.1234, 150.26, 1234.5, 0, 0.00012, math.nan, -0.5)
    assert [number(v) for v in values] == ["31.44", "0.123", "150.3", "1234", "0.000", "1.2e-04", "–", "-0.500"]


def test_a_number_of_a_whole_set_says_of_how_many_patients_and_has_no_interval():
    whole = {"task": "anomaly", "metric": "auroc_image", "method": "ours", "region": "abdomen", "value": 0.7}
    line = aggregate(validate([{**whole, "patients": 8}])).iloc[0]
    assert (line["patients"], line["mean"]) == (8, 0.7)
    assert math.isnan(line["low"])


def test_one_patient_counts_once_however_a_row_names_it():
    table = validate([row(), {**row(), "patient": "", "case": ""}])
    assert sorted(table["patients"]) == [0, 1]


def test_the_painted_map_is_the_rival_where_the_map_is_given_and_a_yardstick_where_it_is_not():
    assert kind("class-mean") == "baseline"
    assert kind("label-mean") == "reference"
