"""Processes: background processes that outlive the command, recorded so that they and nothing else can be ended.

Every process is recorded in `<home>/services.json` with its pid and its start time the moment it exists; a pid that has
been used again by another program is recognised by the start time and left alone.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil

from infra.config import Config
from infra.errors import UserError

LOOPBACK = "127.0.0.1"


class Service(Config):
    """One background process: what it is, how to know it again, where it answers and where it logs."""

    name: str
    pid: int
    created: float
    address: str
    log: str

    @property
    def alive(self) -> bool:
        """Whether the very process that was started still runs."""
        return _same_process(self) is not None


def running(home: Path) -> dict[str, Service]:
    """The recorded services that are alive, by name; empty where nothing was started."""
    return {service.name: service for service in recorded(home) if service.alive}


def free_port(first: int) -> int:
    """The first port from `first` on that nothing on loopback listens on.

    Raises:
        UserError: a hundred ports in a row are busy.
    """
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return port
    raise UserError(f"no free port between {first} and {first + 99} on {LOOPBACK}: end what listens there")


def spawn(home: Path, name: str, command: list[str], env: dict[str, str], address: str) -> Service:
    """Starts a command in a session of its own, its output in `<home>/logs/<name>.log`, and records it."""
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    created = psutil.Process(process.pid).create_time()
    service = Service(name=name, pid=process.pid, created=created, address=address, log=str(log))
    _record(home, [*recorded(home), service])
    return service


def wait(service: Service, healthy: Callable[[], bool], within_s: float = 180.0) -> None:
    """Waits until a service is healthy.

    Raises:
        UserError: it ended, or did not answer in time; the message ends with the last lines of its log.
    """
    deadline = time.monotonic() + within_s
    while not healthy():
        if not service.alive:
            raise UserError(f"the {service.name} service ended while starting; {_log_tail(service)}")
        if time.monotonic() > deadline:
            raise UserError(f"the {service.name} service did not answer within {within_s:.0f} s; {_log_tail(service)}")
        time.sleep(0.25)


def _log_tail(service: Service, lines: int = 5) -> str:
    text = Path(service.log).read_text(errors="replace").strip().splitlines()
    return f"its log {service.log} ends: " + " | ".join(line.strip() for line in text[-lines:])


def recorded(home: Path) -> list[Service]:
    """Every process that was recorded and not ended yet, alive or not, oldest first."""
    path = home / "services.json"
    if not path.exists():
        return []
    state: dict[str, Any] = json.loads(path.read_text())
    return [Service.model_validate(service) for service in state["services"]]


def _record(home: Path, services: list[Service]) -> None:
    state = {"format": 1, "services": [service.model_dump(mode="json") for service in services]}
    temporary = home / "services.json.tmp"
    temporary.write_text(json.dumps(state, indent=1))
    temporary.replace(home / "services.json")


def _same_process(service: Service) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(service.pid)
        if abs(process.create_time() - service.created) < 0.5 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _family(service: Service) -> list[psutil.Process]:
    """The service's process, its descendants, and what is left of its session if it died before them."""
    family: dict[int, psutil.Process] = {}
    leader = _same_process(service)
    if leader is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = {process.pid: process for process in (leader, *leader.children(recursive=True))}
    elif psutil.pid_exists(service.pid) and not _is_zombie(service.pid):
        return []  # the pid belongs to a stranger now
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == service.pid:
                family[process.pid] = process
    return list(family.values())


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return False


def end(home: Path) -> list[str]:
    """Ends what is recorded, newest first, children included: SIGTERM, after 15 s SIGKILL; names what it ended."""
    ended = []
    for service in reversed(recorded(home)):
        family = _family(service)
        if family:
            ended.append(service.name)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(family, timeout=15)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
    (home / "services.json").unlink(missing_ok=True)
    return ended


@contextlib.contextmanager
def locked(home: Path) -> Generator[None]:
    """Only one process at a time is inside, for one folder."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "services.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
