"""The table at a glance: whose a method is, which metric leads a task, who is better beyond the intervals."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Kind = Literal["ours", "baseline", "reference"]

OURS = "ours"
REFERENCES = {"noisy", "input", "label-mean", "ceiling", "real", "floor", "published", "reference", "organ-mask"}
HIGHER = {"psnr", "ssim", "auroc", "ap", "pro", "dice", "gain"}
LOWER = {"rmse", "mae", "fid", "kid", "mmd", "distance", "error"}
PRIMARY = {
    "synthesis": ("organ_hu_error", "dice_anatomy"),
    "denoising": ("psnr_gain", "psnr_gain_vs_image"),
    "anomaly": ("auroc_px_organ", "auroc_px_organ_gain", "auroc_image", "auroc"),
    "superresolution": ("psnr",),
    "lesion-generation": ("contrast_error", "dice_lesion"),
    "lesion-inpainting": ("contrast_error", "dice_lesion"),
}
PLACEBO = "contrast 0 HU"  # ends the name of a setting in which there is nothing to find, so nobody wins
PLACE = ["region", "setting", "metric", "unit"]


def is_ours(method: str) -> bool:
    """Whether a method is a checkpoint's own."""
    return re.split("[-@]", method)[0] == OURS


def kind(method: str) -> Kind:
    """Whether a method is ours, a classical baseline, or a yardstick such as the untouched input."""
    if is_ours(method):
        return "ours"
    return "reference" if method in REFERENCES else "baseline"


def direction(metric: str) -> int:
    """+1 if more is better, −1 if less is, 0 if neither can be said."""
    words = _words(metric)
    return 1 if words & HIGHER else -1 if words & LOWER else 0


def _words(metric: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", metric.split("[")[0].lower()))


def primary_metrics(task: str, metrics: Sequence[str]) -> list[str]:
    """The metrics that lead a task's summary, among those measured; the first measured one where none of them was."""
    wanted = PRIMARY.get(task, ())
    exact = [metric for word in wanted for metric in metrics if metric.split("[")[0] == word]
    alike = [metric for metric in metrics if any(word in _words(metric) for word in wanted)]
    return exact or alike[:1] or list(metrics[:1])


def clear_winner(rows: pd.DataFrame) -> str:
    """The best method of one task, region, setting and metric if its interval touches no other's; "" otherwise.

    Yardsticks do not compete. A method without an interval neither wins nor lets another win. Nobody wins a placebo.
    """
    if rows["setting"].str.endswith(PLACEBO).any():
        return ""
    rivals = rows[rows["method"].map(lambda method: kind(str(method)) != "reference") & rows["mean"].notna()]
    sign = direction(rows["metric"].iloc[0]) if len(rows) else 0
    if sign == 0 or len(rivals) < 2:
        return ""
    ranked = rivals.assign(score=sign * rivals["mean"]).sort_values("score", ascending=False)
    worst_of_best = sign * ranked.iloc[0]["low" if sign > 0 else "high"]
    best_of_rest = (sign * ranked.iloc[1:]["high" if sign > 0 else "low"]).max(skipna=False)
    clear = math.isfinite(worst_of_best) and math.isfinite(best_of_rest) and worst_of_best > best_of_rest
    return str(ranked.iloc[0]["method"]) if clear else ""


def ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with ours first, then baselines, then yardsticks, each best first."""
    sign = direction(rows["metric"].iloc[0]) if len(rows) else 0
    groups = rows["method"].map(lambda method: ("ours", "baseline", "reference").index(kind(str(method))))
    keys = rows.assign(_kind=groups, _score=-(sign or 1) * rows["mean"])
    return rows.loc[keys.sort_values(["_kind", "_score", "method"], na_position="last").index]


def number(value: float) -> str:
    """A number at four significant digits at most, or an en dash for NaN."""
    if not math.isfinite(value):
        return "–"
    if value == 0 or 0.001 <= abs(value) < 1:
        return f"{value:.3f}"
    digits = 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:.{digits}f}" if abs(value) >= 1 else f"{value:.1e}"


def interval(row: pd.Series) -> str:
    """ "[low, high]", or "" where there is no interval."""
    return f"[{number(row['low'])}, {number(row['high'])}]" if math.isfinite(row["low"]) else ""


def short_unit(unit: str) -> str:
    """The unit without its parenthesis; "" for a plain ratio."""
    return unit.split(" (")[0] if not unit.startswith("1") else ""


def condition(unit: str) -> str:
    """What a unit's parenthesis says, such as the data range; "" without one."""
    return unit.partition(" (")[2].rstrip(")")


def summary(aggregated: pd.DataFrame) -> pd.DataFrame:
    """The rows of each task's leading metrics, in order; rows that only carry a reason are kept."""
    parts = []
    for task, rows in aggregated.groupby("task", sort=False):
        leading = primary_metrics(str(task), list(dict.fromkeys(rows.loc[rows["mean"].notna(), "metric"])))
        parts += [rows[rows["metric"] == metric] for metric in leading]
        parts.append(rows[rows["mean"].isna() & ~rows["metric"].isin(leading)])
    return pd.concat(parts) if parts else aggregated


def format_table(aggregated: pd.DataFrame) -> Group:
    """Each task's primary metric for a terminal of 100 columns: ours with intervals, and what stands beside it.

    Bold is a method whose interval touches no rival's; what was not measured says why.
    """
    parts: list[RenderableType] = []
    for task, rows in summary(aggregated).groupby("task", sort=False):
        parts.append(Text(f"\n{task}", style="bold cyan"))
        for metric, measured in rows[rows["mean"].notna()].groupby("metric", sort=False):
            parts += [_heading(str(metric), measured["unit"]), _place_table(measured)]
        parts += _reasons(rows)
    return Group(*parts)


def _heading(metric: str, units: pd.Series) -> Text:
    unit = units.iloc[0] if units.nunique() == 1 else short_unit(units.iloc[0])
    sense = {1: "more is better", -1: "less is better", 0: ""}[direction(metric)]
    said = ", ".join(part for part in (metric, unit if unit != "1" else "", sense, "[95 % CI], n patients") if part)
    return Text(said, style="dim")


def _place_table(measured: pd.DataFrame) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=22)
    table.add_column(width=38)
    table.add_column(ratio=1)
    table.add_column(justify="right", style="dim")
    for _, place in measured.groupby(PLACE, sort=False):
        where, *cells = _cells(place)
        table.add_row(
            where if measured["unit"].nunique() == 1 else f"{where}\n{condition(place['unit'].iloc[0])}", *cells
        )
    return table


def _cells(rows: pd.DataFrame) -> tuple[str, Text, Text, str]:
    first, winner, ours, others = rows.iloc[0], clear_winner(rows), Text(), Text()
    where = " · ".join(part for part in (first["region"], first["setting"]) if part)
    for _, row in ranked(rows[rows["mean"].notna()]).iterrows():
        style = "bold" if row["method"] == winner else ""
        if kind(row["method"]) == "ours":
            ours.append("\n" if ours else "").append(f"{row['method']} {number(row['mean'])} {interval(row)}", style)
        else:
            others.append(" · " if others else "").append(
                f"{row['method']}\N{NO-BREAK SPACE}{number(row['mean'])}", style
            )
    return where, ours, others, f"{rows['patients'].max()}"


def _reasons(rows: pd.DataFrame) -> list[Text]:
    said = []
    for reason, missing in rows[rows["reason"] != ""].groupby("reason", sort=False):
        about = ", ".join(dict.fromkeys(filter(None, missing["region"])))
        where = f" ({about})" if about else ""
        said.append(Text(f"{missing['failed'].sum()} not measured{where}: {reason}", style="yellow"))
    return said
