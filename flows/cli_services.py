"""Service verbs of the command: up, down, doctor."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import typer

from flows import terminal
from flows.results import beside
from infra import services
from infra.errors import UserError
from infra.lake import open_lake
from infra.processes import running
from infra.settings import Settings, load_settings


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


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False) -> None:
    """What this machine has and lacks; exit code 1 if something is missing that every run needs."""
    checks = machine_checks(load_settings())
    if as_json:
        terminal.print_json([{"what": what, "ok": ok, "found": found} for what, ok, found in checks])
    else:
        rows = [("ok" if ok else "MISSING", what, found) for what, ok, found in checks]
        terminal.out().print(terminal.table("this machine", ("", "what", "found"), rows))
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


def machine_checks(settings: Settings) -> list[tuple[str, bool, str]]:
    """(what, good enough, what was found) of everything that a run leans on."""
    memory_gib = psutil.virtual_memory().total / 2**30
    free_gib = shutil.disk_usage(_existing(settings.home)).free / 2**30
    alive = running(settings.home)
    return [
        ("Python", sys.version_info >= (3, 11), sys.version.split()[0]),
        ("cores", True, str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())),
        ("memory", memory_gib >= 3.5, f"{memory_gib:.1f} GiB; 4 are needed"),
        ("disk", free_gib >= 2, f"{free_gib:.1f} GiB free at {settings.home}; 2 are needed"),
        ("GPU", True, _gpu()),
        *((name, True, version(name)) for name in ("prefect", "mlflow", "dask", "zarr", "torch", "monai")),
        _lake_check(settings),
        ("MLflow store", True, settings.mlflow_uri),
        ("services", True, ", ".join(f"{s.name} {s.address}" for s in alive.values()) or "none (meddiff up)"),
    ]


def _lake_check(settings: Settings) -> tuple[str, bool, str]:
    local = "://" not in settings.lake_url
    if local and not (Path(settings.lake_url) / "lake.json").exists():
        place = _existing(Path(settings.lake_url))
        return ("lake", os.access(place, os.W_OK), f"{settings.lake_url}: none yet, made by the first ingest")
    try:
        lake = open_lake(settings.lake_url, create=False)
    except UserError as error:
        return ("lake", False, str(error))
    return ("lake", True, f"{lake.url} (id {lake.id})")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _gpu() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none: the tiny presets run on the CPU, the paper presets need one"
    done = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() or "nvidia-smi finds none"


VERBS = (up, down, doctor)
