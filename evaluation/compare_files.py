"""A comparison as files: CSV and Parquet for machines, Markdown for people."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from evaluation.table import to_parquet
from evaluation.verdict import number

HEADINGS = ("where", "method", "first", "other", "difference", "95 % CI", "p (Holm)", "pairs", "verdict")
LEGEND = (
    "Means are over the pairs; the interval is a bootstrap of the paired difference by patient; p is Wilcoxon's "
    "signed-rank test, corrected by Holm over the rows of two sweeps. Better or worse needs both; with few pairs "
    '"no difference" says little.'
)


def save(rows: pd.DataFrame, notes: Sequence[str], folder: Path) -> list[Path]:
    """Writes `comparison.csv`, `comparison.parquet` and `comparison.md` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "comparison.csv": rows.to_csv(index=False).encode(),
        "comparison.parquet": to_parquet(rows),
        "comparison.md": markdown(rows, notes).encode(),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in written]


def cells(row: pd.Series) -> tuple[str, ...]:
    """One row as the text of HEADINGS."""
    place = " · ".join(part for part in (row["region"], row["setting"]) if part)
    interval = f"[{signed(row['low'])}, {signed(row['high'])}]" if pd.notna(row["low"]) else ""
    p = "" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.2g}"
    means = number(row["mean_first"]), number(row["mean"])
    delta = signed(row["delta"]) if pd.notna(row["delta"]) else ""
    return (place, row["method"], *means, delta, interval, p, str(row["pairs"]), row["verdict"] or row["reason"])


def signed(value: float) -> str:
    """A number with its sign; 0 has none."""
    return f"+{number(value)}" if value > 0 else number(value).replace("-", "−")


def markdown(rows: pd.DataFrame, notes: Sequence[str]) -> str:
    """The comparison as Markdown: one table per two sweeps, task and metric."""
    text = io.StringIO()
    text.write("# Sweeps compared\n\n")
    text.writelines(f"- {note}\n" for note in notes)
    text.write(f"\n{LEGEND}\n")
    for (first, other, task, metric), part in rows.groupby(["first", "run", "task", "metric"], sort=False):
        for unit, found in part.groupby("unit", sort=False):
            text.write(f"\n## {task}: {metric}, {unit} ({first} → {other})\n\n")
            lines = [HEADINGS, ["---"] * len(HEADINGS), *(cells(row) for _, row in found.iterrows())]
            text.writelines("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return text.getvalue()
