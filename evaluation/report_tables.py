"""The report's tables as plain values for its template: at a glance, by place, by case, and what is missing."""

from typing import Any

import pandas as pd
from markupsafe import Markup

from evaluation import plots
from evaluation.report_texts import TASK_TEXTS
from evaluation.verdict import clear_winner, condition, direction, interval, kind, number, ranked, short_unit, summary

CASE_ROWS = 400
ACRONYMS = {"psnr", "ssim", "rmse", "mae", "auroc", "ap", "hu", "kid", "fid"}
KINDS = ("ours", "baseline", "reference")


def glance(aggregated: pd.DataFrame) -> list[dict[str, Any]]:
    """Each task's leading metric: the best of ours beside the best baseline."""
    lines = []
    measured = summary(aggregated)
    measured = measured[measured["mean"].notna()]
    for (task, region, setting, metric, unit), rows in measured.groupby(
        ["task", "region", "setting", "metric", "unit"], sort=False
    ):
        ordered, winner = ranked(rows), clear_winner(rows)
        best = {name: ordered[ordered["method"].map(kind) == name].head(1) for name in ("ours", "baseline")}
        lines.append(
            {
                "task": task,
                "title": TASK_TEXTS.get(str(task), (str(task),))[0],
                "where": where(region, setting),
                "metric": metric_name(str(metric), str(unit)),
                **{name: _said(row.iloc[0], winner) if len(row) else None for name, row in best.items()},
                "patients": int(rows["patients"].max()),
            }
        )
    return lines


def where(region: Any, setting: Any) -> str:
    """Region and setting, as people read them."""
    return " · ".join(str(part) for part in (region, setting) if part).replace("_", " ").replace("sigma=", "σ = ")


def _said(row: pd.Series, winner: str) -> dict[str, Any]:
    return {"method": row["method"], "mean": number(row["mean"]), "wins": row["method"] == winner}


def places(aggregated: pd.DataFrame) -> list[dict[str, Any]]:
    """One table per region and setting of a task."""
    measured = aggregated[aggregated["mean"].notna()]
    return [_place(key, rows) for key, rows in measured.groupby(["region", "setting"], sort=False)]


def _place(key: Any, rows: pd.DataFrame) -> dict[str, Any]:
    """One table: methods down, metrics across, each cell with its interval on the column's scale."""
    columns = list(dict.fromkeys(zip(rows["metric"], rows["unit"], strict=True)))
    order = list(dict.fromkeys(method for column in columns for method in ranked(_column(rows, column))["method"]))
    order.sort(key=lambda method: KINDS.index(kind(method)))
    cells = {column: _cells(_column(rows, column)) for column in columns}
    return {
        "title": where(*key),
        "columns": [_column_title(*column) for column in columns],
        "methods": [_method(m, rows[rows["method"] == m], [cells[c].get(m) for c in columns]) for m in order],
    }


def _column(rows: pd.DataFrame, column: tuple[str, str]) -> pd.DataFrame:
    return rows[(rows["metric"] == column[0]) & (rows["unit"] == column[1])]


def _method(method: str, rows: pd.DataFrame, cells: list[dict[str, Any] | None]) -> dict[str, Any]:
    return {
        "name": method,
        "kind": kind(method),
        "cells": cells,
        "patients": int(rows["patients"].max()),
        "cases": int(rows["cases"].max()),
    }


def _cells(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    ends = [*rows["mean"], *rows["low"].dropna(), *rows["high"].dropna()]
    span, winner = (min(ends), max(ends)), clear_winner(rows)
    return {
        row["method"]: {
            "mean": number(row["mean"]),
            "interval": interval(row),
            "bar": Markup(plots.interval_bar(row["mean"], row["low"], row["high"], span)),
            "wins": row["method"] == winner,
        }
        for _, row in rows.iterrows()
    }


def reasons(rows: pd.DataFrame) -> list[str]:
    """What was not measured and why, each reason once with its count and places."""
    missing = rows[rows["value"].isna()]
    said = []
    for reason, group in missing.groupby("reason", sort=False):
        about = {" ".join(filter(None, pair)) for pair in zip(group["region"], group["metric"], strict=True)} - {""}
        many = f"{len(group)} measurements are" if len(group) > 1 else "One measurement is"
        said.append(f"{many} missing{' (' + ', '.join(sorted(about)) + ')' if about else ''}: {reason}.")
    return said


def cases(rows: pd.DataFrame) -> dict[str, Any]:
    """The per-case table of a task, metrics across; its first CASE_ROWS rows, and how many more there are."""
    index = ["region", "setting", "case", "method"]
    measured = rows[rows["value"].notna() & (rows["case"] != "")]
    if measured.empty:
        return {"columns": [], "rows": [], "text_columns": 0, "more": 0}
    named = [metric_name(*pair) for pair in zip(measured["metric"], measured["unit"], strict=True)]
    wide = measured.assign(column=named).pivot_table(index=index, columns="column", values="value", sort=False)
    shown = wide.head(CASE_ROWS)
    body = [[*key, *map(number, values)] for key, values in zip(shown.index, shown.to_numpy(), strict=True)]
    return {"columns": [*index, *wide.columns], "rows": body, "text_columns": len(index), "more": len(wide) - len(body)}


def metric_name(metric: str, unit: str) -> str:
    """As people write it, with the unit and, where there is one, the extractor."""
    name, bracket, extractor = metric.partition("[")
    words = [word.upper() if word in ACRONYMS else word for word in name.replace("-", "_").split("_")]
    words += [short_unit(unit)] if short_unit(unit) not in words else []
    return " ".join(filter(None, words)) + (f" {bracket}{extractor}" if bracket else "")


def _column_title(metric: str, unit: str) -> dict[str, Any]:
    name, _, extractor = metric_name(metric, unit).partition(" [")
    said = filter(None, (extractor.rstrip("]"), condition(unit).replace("_", " ")))
    return {"name": name, "condition": ", ".join(said), "direction": direction(metric)}
