"""The report's plots of a task: its curves by place, and how its leading metrics are spread over patients."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from evaluation import plots
from evaluation.curves import Curve, by_place
from evaluation.metrics import COST
from evaluation.report_tables import KINDS, metric_name, where
from evaluation.verdict import kind, primary_metrics

MOST_SERIES = 8  # colours
TITLES = {"roc": "ROC within the organ", "sigma": "Noise level"}


def task_plots(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """One plot per kind, region and setting of curves."""
    return [_plot(key, found[:MOST_SERIES]) for key, found in by_place(curves).items()]


def _plot(key: tuple[str, str, str], curves: Sequence[Curve]) -> dict[str, Any]:
    name, region, setting = key
    series: dict[str, tuple[tuple[float, float], ...]] = {}
    for curve in sorted(curves, key=lambda curve: kind(curve.series) != "ours"):
        if name == "sigma" or curve.series not in series:  # points of every noise level, a line of the first seed
            series[curve.series] = series.get(curve.series, ()) + curve.points
    if name == "roc":
        svg = plots.square(series, "false positive rate", "true positive rate", joined=True, reach=1.0)
    else:
        reach = 1.05 * max(max(point) for points in series.values() for point in points)
        svg = plots.square(series, "true σ, scale [−1, 1]", "estimated σ", joined=False, reach=reach)
    return {"title": TITLES[name], "where": where(region, setting), "svg": Markup(svg), "legend": list(series)}


def costs(task: str, aggregated: pd.DataFrame) -> list[dict[str, Any]]:
    """Quality over noise estimates per voxel, for the first leading metric, where methods of different cost compete."""
    found = []
    for (region, setting), rows in aggregated[aggregated["mean"].notna()].groupby(["region", "setting"], sort=False):
        cost = rows[rows["metric"] == COST].set_index("method")["mean"]
        leading = primary_metrics(task, [name for name in dict.fromkeys(rows["metric"]) if name != COST])[:1]
        if cost.nunique() < 3:  # classical methods cost nothing: with one of ours there is no trade
            continue
        quality = rows[rows["metric"].isin(leading) & rows["method"].isin(cost.index)]
        points = [
            (row["method"], kind(row["method"]), cost[row["method"]], row["mean"]) for _, row in quality.iterrows()
        ]
        svg = plots.cost(points, metric_name(*quality[["metric", "unit"]].iloc[0]))
        title = f"Cost and {metric_name(leading[0], '')}"
        found.append({"title": title, "where": where(region, setting), "svg": Markup(svg), "legend": []})
    return found


def distributions(task: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One plot per place of each leading metric in which some method has two patients or more."""
    measured = rows[rows["value"].notna() & (rows["patient"] != "")]
    leading = primary_metrics(task, list(dict.fromkeys(measured["metric"])))
    found = []
    for (metric, unit, region, setting), of_place in measured[measured["metric"].isin(leading)].groupby(
        ["metric", "unit", "region", "setting"], sort=False
    ):
        values = _by_method(of_place)
        if any(len(of_method) > 1 for _, _, of_method in values):
            svg = plots.distribution(values, metric_name(str(metric), str(unit)))
            said = {"title": metric_name(str(metric), ""), "where": where(region, setting)}
            found.append({**said, "svg": Markup(svg), "legend": []})
    return found


def _by_method(rows: pd.DataFrame) -> list[tuple[str, str, list[float]]]:
    """Methods with one mean per patient, ours first."""
    means = rows.groupby(["method", "patient"], sort=False)["value"].mean()
    methods = sorted(dict.fromkeys(rows["method"]), key=lambda name: KINDS.index(kind(name)))
    return [(name, kind(name), means[name].tolist()) for name in methods]
