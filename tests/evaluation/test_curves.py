"""Curves keep their shape when they are thinned, and are those of scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score

from evaluation.curves import MOST_POINTS, Curve, by_place, roc_points, thinned


@given(seed=st.integers(0, 200), shift=st.floats(0, 3))
def test_the_area_under_a_thinned_roc_curve_is_that_of_all_points(seed, shift):
    rng = np.random.default_rng(seed)
    truth = rng.random(3000) < 0.2
    scores = rng.normal(0, 1, 3000) + shift * truth
    points = np.array(roc_points(scores, truth))
    assert len(points) <= MOST_POINTS
    assert (points[0] == 0).all()
    assert (points[-1] == 1).all()
    assert (np.diff(points, axis=0) >= 0).all()
    assert auc(points[:, 0], points[:, 1]) == pytest.approx(roc_auc_score(truth, scores), abs=0.01)


def test_where_one_class_is_missing_there_is_no_curve():
    assert roc_points(np.arange(4), np.zeros(4)) == ()
    assert roc_points(np.arange(4), np.ones(4)) == ()


def test_a_short_line_keeps_all_its_points():
    line = np.array([[0.0, 0.0], [0.0, 0.7], [0.2, 0.7], [1.0, 1.0]])
    assert thinned(line) == tuple(map(tuple, line.tolist()))


def test_curves_of_one_place_belong_into_one_plot():
    a, b = (Curve(kind="roc", region="abdomen", setting="s", series=name, points=()) for name in "ab")
    other = a.replace(setting="t")
    assert by_place([a, other, b]) == {("roc", "abdomen", "s"): [a, b], ("roc", "abdomen", "t"): [other]}
