"""Bench verb of the command: measurements against peers, which live in a checkout's `tests/benchmarks`."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from flows import terminal
from flows.cli_data import JsonOption
from infra.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1]
EXTRA = "-c requirements.lock -e '.[bench]'"


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of tests/benchmarks; a wrong one lists them.")],
    data: Annotated[
        Path | None, typer.Option(envvar="MEDDIFF_TEST_DATA", help="The folder of real CTs.", show_envvar=True)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: proves that it works, measures nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure ourselves against peers on real CTs (in a checkout, with the `bench` extra)."""
    module = _benchmark(name)
    given = {"data": _real_cts(data)} if module.REAL_CTS else {}
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    terminal.err().print(f"{os.cpu_count()} cores, load {busy}: believe the times of a quiet machine only")
    with _peers():
        rows = module.run(**given, quick=quick)
    if as_json:
        terminal.print_json(rows)
        return
    lines = [["" if cell is None else cell for cell in row.values()] for row in rows]
    terminal.out().print(terminal.table(module.TITLE, list(rows[0]), lines))


def _real_cts(data: Path | None) -> Path:
    if data is None or not data.is_dir():
        what = "no folder of CTs is given" if data is None else f"{data} is not there"
        raise UserError(f"{what}: name it with --data DIR or in MEDDIFF_TEST_DATA")
    return data.resolve()


def _benchmark(name: str) -> ModuleType:
    """The benchmark's module.

    Raises:
        typer.BadParameter: there is none of that name.
        UserError: this is no checkout, or a peer is not installed.
    """
    folder = CHECKOUT / "tests"
    if not (folder / "benchmarks" / "__init__.py").is_file():
        raise UserError("benchmarks are part of a checkout, not of the installed package: clone it, run it there")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    known = import_module("benchmarks").BENCHMARKS
    if name not in known:
        raise typer.BadParameter(f"unknown benchmark {name!r}; known: {', '.join(sorted(known))}")
    with _peers():
        return import_module(known[name])


@contextmanager
def _peers() -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: {sys.executable} -m pip install {EXTRA}") from error


VERBS = (bench,)
