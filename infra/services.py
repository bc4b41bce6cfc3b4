"""Services: a Prefect server, an MLflow server and a worker as background processes on loopback, for one person.

`start` returns when all answer and the flows are deployed, or ends what it began; `stop` ends exactly what `start`
began.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from infra.errors import UserError
from infra.processes import LOOPBACK, Service, end, free_port, locked, running, spawn, wait
from infra.settings import Settings

POOL = "cpu"
PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_ENABLE_TELEMETRY": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
UPKEEP = {  # of the Prefect server: its metrics under /api/metrics; nothing grows for ever
    "PREFECT_SERVER_METRICS_ENABLED": "true",
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P7D",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "7776000",  # 90 days
}


def start(settings: Settings, on_step: Callable[[str], None] = lambda step: None) -> dict[str, Service]:
    """Starts what is not running yet, waits until all answer, and deploys the flows of `infra/prefect.yaml`.

    An MLflow server is started only where the settings name no other.

    Raises:
        UserError: a service ended or did not answer in time; the message ends with its last log lines.
    """
    wanted = {"prefect", "worker"} | (set() if _other_mlflow(settings) else {"mlflow"})
    with locked(settings.home):
        alive = running(settings.home)
        if wanted <= set(alive):
            on_step("already running")
            return alive
        end(settings.home)
        try:
            return _start_all(settings, on_step)
        except BaseException:
            end(settings.home)
            raise


def stop(home: Path) -> list[str]:
    """Ends what `start` recorded, children included (SIGTERM, after 15 s SIGKILL); the names of what was ended."""
    if not (home / "services.json").exists():
        return []
    with locked(home):
        return end(home)


def _other_mlflow(settings: Settings) -> bool:
    return settings.mlflow_uri.startswith(("http://", "https://"))


def _start_all(settings: Settings, on_step: Callable[[str], None]) -> dict[str, Service]:
    home = settings.home
    api = f"http://{LOOPBACK}:{free_port(4200)}/api"
    tracking = settings.mlflow_uri if _other_mlflow(settings) else f"http://{LOOPBACK}:{free_port(5000)}"
    env = service_environment(settings, api, tracking)
    on_step("starting the servers")
    prefect = spawn(home, "prefect", prefect_command(api), env, api)
    if not _other_mlflow(settings):
        mlflow = spawn(home, "mlflow", mlflow_command(settings, tracking), env, tracking)
        wait(mlflow, lambda: _answers(f"{tracking}/health"))
    wait(prefect, lambda: _answers(f"{api}/health"))
    on_step("starting the worker")
    worker = spawn(home, "worker", worker_command(), env, api)
    wait(worker, lambda: _worker_online(api))
    on_step("deploying the flows")
    _deploy(home, env)
    return running(home)


def service_environment(settings: Settings, api: str, tracking: str) -> dict[str, str]:
    """The environment of the services and of every flow run: absolute paths, addresses, no telemetry."""
    return {
        **os.environ,
        **QUIET,
        **UPKEEP,
        "MEDDIFF_HOME": str(settings.home),
        "MEDDIFF_LAKE": settings.lake_url,
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_LOGGING_EXTRA_LOGGERS": "infra,preprocessing,training,evaluation",
        "MLFLOW_TRACKING_URI": tracking,
        "PYTHONUNBUFFERED": "1",
    }


def prefect_command(api: str) -> list[str]:
    """The Prefect server's command line; its SQLite file lies in PREFECT_HOME."""
    port = api.removesuffix("/api").rpartition(":")[2]
    return [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", port]


def mlflow_command(settings: Settings, tracking: str) -> list[str]:
    """The MLflow server's command line, over the same SQLite file and folder that a run without a server writes.

    Artifacts are not proxied: clients on this machine write the files themselves, so that a run may use either way.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", tracking.rpartition(":")[2]]
    artifacts = (settings.home / "mlartifacts").as_uri()
    store = ["--backend-store-uri", settings.mlflow_uri, "--default-artifact-root", artifacts, "--no-serve-artifacts"]
    return [*command, "--workers", "1", *store]


def worker_command() -> list[str]:
    """The process worker's command line; it makes the work pool where that is missing."""
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    return [*worker, "--name", "meddiff", "--install-policy", "never"]


def _deploy(home: Path, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    done = subprocess.run(command, env=env, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    (home / "logs" / "deploy.log").write_bytes(done.stdout + done.stderr)
    if done.returncode:
        raise UserError(f"the flows could not be deployed; see {home / 'logs' / 'deploy.log'}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _worker_online(api: str) -> bool:
    url = f"{api}/work_pools/{POOL}/workers/filter"
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return any(worker.get("status") == "ONLINE" for worker in json.load(reply))
    except (urllib.error.URLError, OSError):
        return False
