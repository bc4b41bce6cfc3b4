"""The verb `compare` of the command: sweeps side by side, with paired differences."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table
from rich.text import Text

from evaluation.compare_files import HEADINGS, LEGEND, cells, save
from evaluation.compare_runs import Side, differences, find_sweeps, short_names, warnings
from evaluation.results import SweepSeal
from evaluation.verdict import number
from flows import terminal
from flows.cli_data import JsonOption, LakeOption
from flows.session import open_session
from infra.errors import UserError
from infra.lake import open_lake

RUNS = (
    "Sweeps: fingerprints or their first characters, keys in the lake, MLflow run ids, `newest`, `previous`; "
    "SWEEP@CHECKPOINT, or one sweep alone, compares checkpoints that were judged side by side."
)
STYLES = {"better": "bold green", "worse": "bold red", "differs": "bold", "too few pairs": "dim", "not paired": "dim"}


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help=RUNS)],
    lake: LakeOption = "",
    output: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Save CSV, Parquet, Markdown.")] = None,
    all_metrics: Annotated[bool, typer.Option("--all", help="Every metric, not only those that lead a task.")] = False,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this method; may be repeated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What the first sweep's numbers became in the others, paired by patient: differences, intervals, tests."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    found = find_sweeps(place, runs, settings)
    seals, names = [side.seal for side in found], short_names(found)
    rows = _compared(found, names, all_metrics, task or (), method or ())
    notes = _notes(names, seals)
    if output is not None:
        paths = save(rows, notes, output.expanduser().absolute())
        terminal.err().print("\n".join(map(str, paths)), markup=False)
    if as_json:
        terminal.print_json(_as_json(rows, names, found, seals))
    else:
        _show(rows, notes)


def _compared(found: list[Side], names: list[str], all_metrics: bool, tasks, methods) -> pd.DataFrame:  # noqa: ANN001
    """The comparison; a UserError where some sweep has not one row in common with the first."""
    from evaluation.compare import compare as compare_tables

    tables = {name: side.run.table for name, side in zip(names, found, strict=True)}
    rows = compare_tables(tables, all_metrics=all_metrics, tasks=tasks, methods=methods)
    for name in names[1:]:
        mine = rows[rows["run"] == name]
        if mine["delta"].isna().all():
            why = mine["reason"].iloc[0] if len(mine) else "neither has a number of what was asked for"
            raise UserError(f"{names[0]} and {name} have nothing in common to compare: {why}")
    return rows


def _notes(names: list[str], seals: list[SweepSeal]) -> list[str]:
    """What the sweeps are, what of them differs, and what to beware of."""
    sweeps = [f"{name}: {seal.config.get('preset', '')}, {seal.run}" for name, seal in zip(names, seals, strict=True)]
    differ = [f"{name} differs: {' → '.join(values)}" for name, values in differences(seals).items()]
    return [*sweeps, *differ, *(f"beware: {text}" for text in warnings(seals))]


def _show(rows: pd.DataFrame, notes: list[str]) -> None:
    out = terminal.out()
    for note in notes:
        out.print(Text(note, style="yellow" if note.startswith("beware") else ""))
    for (first, run, task, metric, unit), part in rows.groupby(["first", "run", "task", "metric", "unit"], sort=False):
        out.print(Text(f"\n{task}  {metric}, {unit}  {first} → {run}", style="bold cyan"))
        there = part["delta"].notna()
        if there.any():
            out.print(_table(part[there], str(first), str(run)))
        for reason, rest in part[~there].groupby("reason", sort=False):
            out.print(Text(f"{reason}: {', '.join(map(_alone, rest.to_dict('records')))}", style="yellow"))
    out.print(Text(f"\n{LEGEND}", style="dim"))


def _alone(row: Mapping[Any, Any]) -> str:
    """A row that only one sweep has, or both on other patients."""
    place = " ".join(part for part in (row["region"], row["setting"], row["method"]) if part)
    return f"{place} {' and '.join(number(row[mean]) for mean in ('mean_first', 'mean') if not math.isnan(row[mean]))}"


def _table(part: pd.DataFrame, first: str, run: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        name = {"first": first, "other": run}.get(heading, heading)
        made.add_column(name, justify="left" if heading in {"where", "method", "verdict"} else "right")
    before = ""
    for _, row in part.iterrows():
        where, *others, verdict = cells(row)
        verdict = Text(verdict, style=STYLES.get(verdict, ""))
        made.add_row(Text("" if where == before else where), *map(Text, others), verdict)
        before = where
    return made


def _as_json(rows: pd.DataFrame, names: list[str], found: list[Side], seals: list[SweepSeal]) -> dict[str, Any]:
    sweeps = [
        {"name": name, "fingerprint": seal.run, "key": side.run.key, "data": seal.manifest, "base": seal.base}
        for name, side, seal in zip(names, found, seals, strict=True)
    ]
    return {
        "sweeps": sweeps,
        "differences": differences(seals),
        "warnings": warnings(seals),
        "rows": [{key: _plain(value) for key, value in row.items()} for row in rows.to_dict("records")],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


VERBS = (compare,)
