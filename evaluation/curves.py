"""Curves that a task gives beside its rows, as plain points, for the report to draw."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from infra.config import Config

Points = tuple[tuple[float, float], ...]
CurveKind = Literal["roc", "sigma"]
MOST_POINTS = 200


class Curve(Config):
    """One line or cloud of a plot: of which kind, in which region and setting, whose, and its (x, y) points.

    `roc`: a method's false and true positive rate, over the voxels of all patients. `sigma`: one point per case, the
    true noise level and its estimate, both on the [-1, 1] scale.
    """

    kind: CurveKind
    region: str
    setting: str
    series: str
    points: Points


def roc_points(scores: NDArray, truth: NDArray) -> Points:
    """The ROC curve from (0, 0) to (1, 1) in at most MOST_POINTS of its points; none where one class is missing.

    They are kept evenly along the curve, so that a steep rise keeps its shape.
    """
    truth = np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return ()
    false, true, _ = roc_curve(truth, np.asarray(scores, np.float64))
    return thinned(np.stack([false, true], axis=1))


def thinned(points: NDArray, most: int = MOST_POINTS) -> Points:
    """At most `most` of the points (N, 2) of a line, evenly by its length, first and last among them."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1))])
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most - 1)).clip(0, len(points) - 1))
    kept = np.unique([0, *kept, len(points) - 1])
    return tuple((float(x), float(y)) for x, y in points[kept])


def by_place(curves: Sequence[Curve]) -> dict[tuple[CurveKind, str, str], list[Curve]]:
    """Curves that belong into one plot, in order."""
    plots: dict[tuple[CurveKind, str, str], list[Curve]] = {}
    for curve in curves:
        plots.setdefault((curve.kind, curve.region, curve.setting), []).append(curve)
    return plots
