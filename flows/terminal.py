"""Terminal: progress bars on stderr, tables and machine-readable output on stdout."""

import json
import math
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.progress import Watcher, watched_by

LINE_EVERY_S = 10.0


def out() -> Console:
    """What the command answers; into a file or a pipe, 120 columns wide."""
    return Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)


def err() -> Console:
    """What the command says beside its answer."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    print(json.dumps(value, indent=1, allow_nan=False))  # noqa: T201


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table; numbers to the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[position], int | float) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", no_wrap=not numeric and position == 0)
    for row in rows:
        made.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
    return made


@contextmanager
def bars() -> Generator[None]:
    """One bar per stage while the block runs; where stderr is no terminal, a line every ten seconds instead."""
    console = err()
    if not console.is_terminal:
        with watched_by(_lines(console)):
            yield
        return
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress, watched_by(_bars(progress)):
        yield


def _bars(progress: Progress) -> Watcher:
    rows: dict[str, TaskID] = {}

    def watch(stage: str, done: int, total: int, note: str) -> None:
        if stage not in rows:
            rows[stage] = progress.add_task(stage, total=total, note=note)
        progress.update(rows[stage], completed=done, total=total, note=note)
        if done >= total:
            progress.stop_task(rows[stage])

    return watch


def _lines(console: Console) -> Watcher:
    told: dict[str, float] = {}

    def watch(stage: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done >= total or now - told.get(stage, -math.inf) >= LINE_EVERY_S:
            told[stage] = now
            console.print(f"{stage}: {done} of {total} {note}".rstrip(), markup=False)

    return watch
