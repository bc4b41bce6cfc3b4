"""Results: what a finished sweep shows a person at the terminal, and where to look further."""

import sys
from pathlib import Path

from evaluation.results import finished_sweep
from evaluation.verdict import format_table
from flows.terminal import out
from infra.errors import UserError
from infra.lake import Lake
from infra.processes import running
from infra.settings import Settings


def show_results(lake: Lake, key: str, settings: Settings) -> None:
    """The sweep's table, then the report, the MLflow command and the Prefect command.

    Raises:
        UserError: the sweep is not finished, because a task of it failed.
    """
    run = finished_sweep(lake, key)
    if run is None:
        raise UserError(f"a task of the sweep failed; see {lake.url_of(key)}/report.html, the same command tries again")
    out().print(format_table(run.aggregated))
    out().print(f"\nreport    {lake.url_of(key)}/report.html")
    out().print(f"MLflow    {mlflow_hint(settings)}")
    out().print(f"Prefect   {prefect_hint(settings)}")


def mlflow_hint(settings: Settings) -> str:
    """How to see the runs in MLflow's pages: the address of a running server, or the command that starts one."""
    server = running(settings.home).get("mlflow")
    if server is not None or settings.mlflow_uri.startswith("http"):
        return server.address if server else settings.mlflow_uri
    return f"{beside('mlflow')} server --port 5000 --backend-store-uri {settings.mlflow_uri}"


def prefect_hint(settings: Settings) -> str:
    """How to see the runs in Prefect's pages: the address of a running server, or the command that starts one."""
    server = running(settings.home).get("prefect")
    if server is not None:
        return server.address.removesuffix("/api")
    return f"{beside('meddiff')} up   (then {beside('prefect')} deployment run pipeline/default)"


def beside(command: str) -> str:
    """A command of this environment, by its path where it is not on PATH."""
    path = Path(sys.executable).with_name(command)
    return str(path) if path.exists() else command
