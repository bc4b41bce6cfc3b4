"""Sweeps side by side: the same measurement in two of them, paired by patient.

Two numbers are compared only where task, data set, region, setting, metric (with its extractor), unit and method are
the same. Cases that both sweeps measured are averaged over seeds and then over each patient's cases, so a patient
counts once. A row that only one sweep has is kept with the reason.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from evaluation.table import bootstrap
from evaluation.verdict import PLACEBO, direction, kind, primary_metrics

KEY = ("task", "dataset", "region", "setting", "metric", "unit", "method")
COLUMNS = (*KEY, "first", "run", "pairs", "patients_first", "patients", "mean_first", "mean", "delta", "low", "high",
           "p", "p_holm", "verdict", "reason")  # fmt: skip
LEVEL = 0.05
FEWEST = 6  # pairs with which a two-sided signed-rank test can fall below LEVEL: 2 / 2**6 = .031
WHOLE_SET = "a number of the whole set: there are no patients to pair"

Key = tuple[str, ...]


class _Run(NamedTuple):
    """A sweep's name, its table, and its finite values by key: one per patient and case, averaged over seeds."""

    name: str
    table: pd.DataFrame
    values: dict[Key, pd.Series]


def compare(
    tables: Mapping[str, pd.DataFrame], *, all_metrics: bool = False, tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Every sweep but the first beside the first one.

    Args:
        tables: tidy tables by the sweep's name, the first one being what the others are compared with.
        all_metrics: take every metric, not only those that lead their task.
        tasks, methods: only these; none = all.

    Returns:
        COLUMNS: means over the patients in common, their difference with its 95 % bootstrap interval by patient, the
        p-value of Wilcoxon's signed-rank test (NaN below two pairs or where no patient differs), the same after Holm's
        correction over the rows of one pair of sweeps, and the verdict. A row of one sweep has that sweep's own mean.
    """
    wanted = {name: _wanted(table, tasks, methods) for name, table in tables.items()}
    leading = None if all_metrics else _leading(wanted.values())
    first, *others = (_Run(name, table, _values(table, leading)) for name, table in wanted.items())
    parts = [_judged(pd.DataFrame(_rows(first, other), columns=list(COLUMNS))) for other in others]
    return pd.concat(parts, ignore_index=True)


def _wanted(table: pd.DataFrame, tasks: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    for column, values in (("task", tasks), ("method", methods)):
        table = table[table[column].isin(list(values))] if values else table
    return table


def _leading(tables: Iterable[pd.DataFrame]) -> set[tuple[str, str]]:
    """The (task, metric) pairs that lead in any of the sweeps."""
    measured = [table[table["value"].notna()] for table in tables]
    return {
        (str(task), metric)
        for table in measured
        for task, rows in table.groupby("task", sort=False)
        for metric in primary_metrics(str(task), list(dict.fromkeys(rows["metric"])))
    }


def _values(table: pd.DataFrame, leading: set[tuple[str, str]] | None) -> dict[Key, pd.Series]:
    measured = table[table["value"].notna()]
    if leading is not None:
        pairs = zip(measured["task"], measured["metric"], strict=True)
        measured = measured[np.array([pair in leading for pair in pairs], bool)]
    groups = measured.groupby(list(KEY), sort=False)
    return {tuple(map(str, key)): rows.groupby(["patient", "case", "patients"])["value"].mean() for key, rows in groups}


def _rows(first: _Run, other: _Run) -> list[dict[str, Any]]:
    keys = dict.fromkeys([*first.values, *other.values])
    named = {"first": first.name, "run": other.name}
    return [dict(zip(KEY, key, strict=True)) | named | _row(key, first, other) for key in keys]


def _row(key: Key, first: _Run, other: _Run) -> dict[str, Any]:
    left, right = first.values.get(key), other.values.get(key)
    if left is None or right is None:
        lacking = other if right is None else first
        return _apart(left, right, _why_absent(key, lacking))
    common = left.index.intersection(right.index)
    if common.empty:
        return _apart(left, right, _why_unpaired(left, right))
    if (common.get_level_values("patient") == "").all():
        return _apart(left, right, WHOLE_SET) | {"delta": float(right.mean() - left.mean())}
    return _apart(left, right, "") | _paired(_by_patient(left[common]), _by_patient(right[common]))


def _why_unpaired(left: pd.Series, right: pd.Series) -> str:
    """A distance between sets depends on their size, so only sets of one size are compared."""
    if any((values.index.get_level_values("patient") != "").any() for values in (left, right)):
        return "the two have no patient in common"
    return f"numbers of sets of {_own(left)[0]} and {_own(right)[0]} patients"


def _by_patient(values: pd.Series) -> NDArray[np.float64]:
    return values.groupby("patient").mean().to_numpy(np.float64)


def _apart(left: pd.Series | None, right: pd.Series | None, reason: str) -> dict[str, Any]:
    """Each sweep's own mean over its own patients."""
    return {
        "pairs": 0,
        **dict(zip(("patients_first", "mean_first"), _own(left), strict=True)),
        **dict(zip(("patients", "mean"), _own(right), strict=True)),
        **dict.fromkeys(("delta", "low", "high", "p"), math.nan),
        "reason": reason,
    }


def _own(values: pd.Series | None) -> tuple[int, float]:
    if values is None:
        return 0, math.nan
    means = values.groupby("patient").mean()
    named = int((means.index != "").sum())
    return named or int(values.index.get_level_values("patients").max()), float(means.mean())


def _paired(left: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Any]:
    difference = right - left
    low, high = bootstrap(difference)
    numbers = {"mean_first": left.mean(), "mean": right.mean(), "delta": difference.mean(), "low": low, "high": high}
    return {"pairs": len(difference), **{name: float(n) for name, n in numbers.items()}, "p": signed_rank(difference)}


def signed_rank(difference: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; NaN for fewer than two differences or where all of them are 0."""
    return float(wilcoxon(difference).pvalue) if len(difference) > 1 and np.any(difference) else math.nan


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values after Holm's step-down correction (Holm 1979); a NaN is no test and stays NaN."""
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    corrected = rows.assign(p_holm=holm(rows["p"].to_numpy(np.float64)))
    return corrected.assign(verdict=[_verdict(row) for row in corrected.to_dict("records")])


def _verdict(row: Mapping[Any, Any]) -> str:
    """Better or worse where the corrected test and the interval agree; "differs" where neither can be said of it."""
    if row["pairs"] == 0:
        return "not paired" if math.isfinite(row["delta"]) else ""
    if row["delta"] == 0 and row["low"] == row["high"] == 0:
        return "no difference"
    if row["pairs"] < FEWEST:
        return "too few pairs"
    if not (row["p_holm"] < LEVEL and row["low"] * row["high"] > 0):
        return "no difference"
    sign = 0 if kind(row["method"]) == "reference" or row["setting"].endswith(PLACEBO) else direction(row["metric"])
    return "differs" if sign == 0 else "better" if sign * row["delta"] > 0 else "worse"


def _why_absent(key: Key, run: _Run) -> str:
    """The first column in which a sweep has nothing like this row, or why it could not measure it."""
    rows, place = run.table, dict(zip(KEY, key, strict=True))
    for column in ("task", "region", "setting", "method", "metric", "dataset", "unit"):
        near = rows[rows[column] == place[column]]
        if near.empty:
            return _lacks(run.name, column, place[column], rows)
        rows = near
    return f"not measured in {run.name}: {rows['reason'].iloc[0]}"


def _lacks(name: str, column: str, value: str, near: pd.DataFrame) -> str:
    whole = near[(near["setting"] == "") & (near["reason"] != "")]
    if len(whole):
        return f"not measured in {name}: {whole['reason'].iloc[0]}"
    if column in {"unit", "dataset"}:
        return f"{name} has it {'in' if column == 'unit' else 'on'} {', '.join(dict.fromkeys(near[column]))}"
    return f"{name} has no {column} {value!r} here" if column != "task" else f"{name} has no task {value!r}"
