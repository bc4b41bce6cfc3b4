"""Two tables against each other, measurement by measurement, and what may be said of the difference.

A difference is of one patient: cases and seeds that both tables measured are averaged first. Nothing pairs across
metrics, units (which carry data range and reference), regions, settings or methods.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from evaluation.table import RESAMPLES

PLACE = ("task", "dataset", "region", "setting", "method", "metric", "unit")
WHO = ("case", "patient", "seed")


def paired_differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row per PLACE and patient that both tables measured, with `first`, `second` and `difference`, second − first.

    A measurement of a whole set has no patient, and pairs with that of the same set size.
    """
    keys = [*PLACE, *WHO, "patients"]
    left, right = (table[table["value"].notna()][[*keys, "value"]] for table in (first, second))
    both = left.merge(right, on=keys, suffixes=("_first", "_second"))
    both = both.rename(columns={"value_first": "first", "value_second": "second"})
    means = both.groupby([*PLACE, "patient"], sort=False)[["first", "second"]].mean().reset_index()
    return means.assign(difference=means["second"] - means["first"])


def interval_of_mean(differences: Sequence[float] | NDArray, level: float = 0.95) -> tuple[float, float]:
    """The percentile-bootstrap interval of the mean; NaN for fewer than two. Always the same seed."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return math.nan, math.nan
    picks = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    tails = [50 * (1 - level), 50 * (1 + level)]
    low, high = np.percentile(values[picks].mean(axis=1), tails)
    return float(low), float(high)


def signed_rank_p(differences: Sequence[float] | NDArray) -> float:
    """The two-sided p of Wilcoxon's signed-rank test; 1 where nothing differs, NaN for fewer than two pairs."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2:
        return math.nan
    return float(stats.wilcoxon(values).pvalue) if values.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979); NaN stays and does not count."""
    values = np.asarray(p_values, np.float64)
    order = [i for i in np.argsort(values, kind="stable") if math.isfinite(values[i])]
    corrected, highest = values.copy(), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[index]))
        corrected[index] = highest
    return corrected.tolist()
