"""Service verbs of the command: up, down, doctor."""

from collections.abc import Sequence
from typing import Annotated

import typer

from flows import terminal
from flows.results import beside
from flows.session import open_session
from infra import services
from infra.doctor.check import Check, Probe, examine
from infra.doctor.probes import PROBES
from infra.settings import load_settings
from preprocessing.totalsegmentator import COMMAND, LOOK_S, look_at_tool

WORDS = {"ok": "ok", "warning": "warning", "missing": "MISSING"}


def up() -> None:
    """Start a Prefect server, an MLflow server and a worker on loopback, and deploy the flows."""
    settings = load_settings()
    started = services.start(settings, lambda step: terminal.err().print(f"{step} …"))
    api = started["prefect"].address
    out = terminal.out()
    out.print(f"Prefect  {api}   (pages: {api.removesuffix('/api')})")
    out.print(f"MLflow   {started['mlflow'].address if 'mlflow' in started else settings.mlflow_uri}")
    out.print(f"lake     {settings.lake_url}")
    out.print(f"logs     {settings.home / 'logs'}")
    out.print("\nto run a flow from this shell:")
    out.print(f"  export PREFECT_API_URL={api}")
    out.print(f"  {beside('prefect')} deployment run ingest-ct/default --watch")


def down() -> None:
    """End what `meddiff up` started, and nothing else."""
    ended = services.stop(load_settings().home)
    terminal.out().print(f"ended: {', '.join(ended)}" if ended else "nothing of ours was running")


def doctor(
    lake: Annotated[str, typer.Option("--lake", help="Folder or s3:// url, looked at in place of MEDDIFF_LAKE.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """What this machine and its engines have and lack; exit code 1 if something is missing that every run needs."""
    checks = examine(open_session(lake), (*PROBES, Probe(COMMAND, look_at_tool, LOOK_S + 2)))
    if as_json:
        terminal.print_json([check.model_dump() for check in checks])
    else:
        _show(checks)
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(1)


def _show(checks: Sequence[Check]) -> None:
    """A row for every check, and beside it what to do, where there is anything to do."""
    columns = ("", "what", "found", "what to do")[: 4 if any(check.remedy for check in checks) else 3]
    rows = [(WORDS[check.status], check.what, check.found, check.remedy)[: len(columns)] for check in checks]
    terminal.out().print(terminal.table("this machine", columns, rows), soft_wrap=False)


VERBS = (up, down, doctor)
