"""The tidy table: one row per measurement, and its aggregate with intervals by patient.

A row that could not be measured has no value but a reason; no row is dropped. Rows come out in one order whatever the
order of measuring, so two equal sweeps give equal tables.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluation.config import SHORT, TASKS

COLUMNS = ("checkpoint", "task", "dataset", "region", "setting", "method", "seed", "case", "patient", "patients",
           "metric", "unit", "value", "reason")  # fmt: skip
GROUP = ("checkpoint", "task", "dataset", "region", "setting", "method", "metric", "unit")
RESAMPLES = 2000

_ORDER = ("task", "region", "setting", "metric", "unit", "method", "seed", "case", "checkpoint", "dataset", "reason")


def validate(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as the tidy table: every column, one type each, sorted.

    Args:
        rows: mappings with keys of COLUMNS; left-out text is "", a left-out seed 0, a left-out value NaN; `patients`,
            how many a row is about, is 1 where a patient is named and 0 otherwise.

    Raises:
        ValueError: a row has an unknown column, no task or metric, or neither a finite value nor a reason.
    """
    records = [_record(row) for row in rows]
    types = {"seed": "int64", "patients": "int64", "value": "float64"}
    return merged([pd.DataFrame(records, columns=list(COLUMNS)).astype(types)])


def merged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tidy tables as one, sorted."""
    ordered = pd.concat(tables).sort_values(
        list(_ORDER), key=lambda column: column.map(_rank) if column.name == "task" else column
    )
    return ordered.reset_index(drop=True)


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(row) - set(COLUMNS):
        raise ValueError(f"row {dict(row)} has unknown columns {sorted(unknown)}")
    text = {name: str(row.get(name) or "") for name in COLUMNS if name not in {"seed", "patients", "value"}}
    value = row.get("value")
    number = math.nan if value is None else float(value)
    if not text["task"] or not (text["metric"] or text["reason"]):
        raise ValueError(f"row {dict(row)} lacks its task or its metric")
    if not math.isfinite(number):
        text["reason"] = text["reason"] or _why_not(number, value)
        number = math.nan
    patients = int(row.get("patients") or bool(text["patient"]))
    return {**text, "seed": int(row.get("seed") or 0), "patients": patients, "value": number}


def _why_not(number: float, value: Any) -> str:
    if value is None:
        raise ValueError("a row without a value needs a reason")
    return "the metric is not a number here" if math.isnan(number) else "the metric is infinite here"


def _rank(task: str) -> str:
    return f"{TASKS.index(task)}" if task in TASKS else f"9{task}"


def aggregate(table: pd.DataFrame, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Mean over patients with a 95 % percentile-bootstrap interval by patient.

    Cases and seeds of one patient are averaged first, so a patient counts once however many CTs there are. A
    measurement of a whole set (no patient) keeps its value and has no interval; nor has a single patient.

    Returns:
        One row per GROUP: mean, low, high, cases, patients, failed (rows without a value) and the first reason.
    """
    groups = table.groupby(list(GROUP), sort=False, dropna=False)
    rows = [{**dict(zip(GROUP, key, strict=True)), **_summary(group, resamples)} for key, group in groups]
    columns = [*GROUP, "mean", "low", "high", "cases", "patients", "failed", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _summary(group: pd.DataFrame, resamples: int) -> dict[str, Any]:
    measured = group[group["value"].notna()]
    failed = group[group["value"].isna()]
    by_patient = measured[measured["patient"] != ""].groupby("patient")["value"].mean().to_numpy(np.float64)
    low, high = bootstrap(by_patient, resamples)
    return {
        "mean": float(by_patient.mean()) if len(by_patient) else float(measured["value"].mean()),
        "low": low,
        "high": high,
        "cases": int(measured.loc[measured["case"] != "", "case"].nunique()),
        "patients": len(by_patient) or int(measured["patients"].max() if len(measured) else 0),
        "failed": len(failed),
        "reason": str(failed["reason"].iloc[0]) if len(failed) else "",
    }


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """Several checkpoints side by side: a method whose numbers depend on them is named `method@checkpoint`.

    What is the same for all, such as a baseline, stands once. A table of one checkpoint is returned as it is.
    """
    checkpoints = list(dict.fromkeys(table["checkpoint"]))
    if len(checkpoints) < 2:
        return table
    parts = []
    for method, rows in table.groupby("method", sort=False):
        of = [
            rows[rows["checkpoint"] == name].drop(columns="checkpoint").reset_index(drop=True) for name in checkpoints
        ]
        if all(other.equals(of[0]) for other in of[1:]):
            parts.append(rows[rows["checkpoint"] == checkpoints[0]])
        else:
            parts.append(rows.assign(method=[f"{method}@{name[:SHORT]}" for name in rows["checkpoint"]]))
    return pd.concat(parts).sort_index()


def cell_means(table: pd.DataFrame) -> pd.DataFrame:
    """One row per GROUP and seed with its `mean` over patients, as `aggregate` has it, without intervals."""
    measured = table[table["value"].notna()]
    keys = [*GROUP, "seed"]
    by_patient = measured.groupby([*keys, "patient"], sort=False, dropna=False)["value"].mean()
    return by_patient.groupby(keys, sort=False).mean().rename("mean").reset_index()


def bootstrap(values: NDArray[np.float64], resamples: int = RESAMPLES, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the mean of resampled values; NaN for fewer than two. Always the same seed."""
    if len(values) < 2:
        return math.nan, math.nan
    picks = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def to_parquet(table: pd.DataFrame) -> bytes:
    """The table as Parquet: equal tables give equal bytes."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pd.DataFrame:
    """The table that `to_parquet` wrote."""
    return pd.read_parquet(io.BytesIO(data))
