"""Differences pair by patient, place and unit only, and are judged as scipy and a hand case judge them."""

import math

import numpy as np
import pytest
from scipy import stats

from evaluation.paired import holm, interval_of_mean, paired_differences, signed_rank_p
from evaluation.table import validate

ROW = {"task": "denoising", "dataset": "x", "region": "chest", "setting": "s", "method": "ours", "metric": "psnr",
       "unit": "dB", "case": "c", "patient": "p"}  # fmt: skip


def table(*rows):
    return validate([{**ROW, **row} for row in rows])


def test_a_difference_is_the_second_less_the_first_of_one_patient():
    first = table({"value": 1, "case": "a"}, {"value": 3, "case": "b"}, {"value": 5, "patient": "q"})
    second = table({"value": 2, "case": "a"}, {"value": 6, "case": "b"}, {"value": 4, "patient": "q"})
    found = paired_differences(first, second).set_index("patient")
    assert found.loc["p", ["first", "second", "difference"]].tolist() == [2, 4, 2]
    assert found.loc["q", "difference"] == -1


@pytest.mark.parametrize("column", ["task", "dataset", "region", "setting", "method", "metric", "unit", "case", "seed"])
def test_nothing_pairs_across_places_units_cases_or_seeds(column):
    other = {"task": "anomaly", "seed": 1}.get(column, "other")
    assert paired_differences(table({"value": 1}), table({"value": 2, column: other})).empty


def test_a_value_that_is_missing_on_one_side_pairs_with_nothing():
    second = table({"value": None, "reason": "failed"}, {"value": 3, "patient": "q", "case": "d"})
    first = table({"value": 1}, {"value": 1, "patient": "q", "case": "d"})
    assert paired_differences(first, second)["patient"].tolist() == ["q"]


def test_measurements_of_sets_pair_where_the_sets_are_equally_large():
    of_set = {"case": "", "patient": "", "patients": 4}
    first, same, larger = (table({**of_set, "value": v, "patients": n}) for v, n in ((1, 4), (2, 4), (2, 5)))
    assert paired_differences(first, same)["difference"].tolist() == [1]
    assert paired_differences(first, larger).empty


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(3).normal(1, 2, 40)
    low, high = interval_of_mean(values)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.05)
    wider = interval_of_mean(values, 0.99)
    assert wider[0] < low < high < wider[1]
    assert all(map(math.isnan, interval_of_mean([1.0])))


def test_the_signed_rank_test_of_five_gains_is_known():
    assert signed_rank_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 2**5)
    assert signed_rank_p([0, 0, 0]) == 1
    assert math.isnan(signed_rank_p([1]))


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([0.01, math.nan, 0.04])
    assert math.isnan(corrected[1])
    assert (corrected[0], corrected[2]) == pytest.approx((0.02, 0.04))
