"""What the doctor says of a Dask scheduler and its workers, all of them real processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from infra.doctor import dask_scheduler
from infra.doctor.check import Probe, examine
from infra.doctor.dask_scheduler import look_at_dask
from infra.lake import open_lake
from infra.settings import load_settings

STRANGER = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "infra":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from distributed.cli.dask_worker import main
main()
"""
BLIND = """
from infra.lake import Lake
def nothing(lake, key):
    raise FileNotFoundError(key)
Lake.read = nothing
from distributed.cli.dask_worker import main
main()
"""
OPTIONS = ("--nthreads", "1", "--memory-limit", "2GiB", "--no-nanny", "--no-dashboard")


@contextmanager
def process(*command, **environment):
    """A process that is killed with the block, even where it was stopped."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    started = subprocess.Popen([sys.executable, *command], env=env, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    ports = ("--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(file))
    with process("-m", "distributed.cli.dask_scheduler", *ports, "--no-dashboard"):
        while not file.exists():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]


@pytest.fixture(autouse=True)
def own_home(address, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDDIFF_LAKE", "")
    monkeypatch.setenv("MEDDIFF_DASK_ADDRESS", address)


@pytest.fixture(scope="module")
def worker(address):
    """A worker that is as it should be; it is gone where another test wants none."""
    with process("-m", "distributed.cli.dask_worker", address, *OPTIONS) as started:
        yield started


def look():
    return {check.what: check for check in look_at_dask(load_settings())}


def look_until(count):
    """What is found once the scheduler knows so many workers, those of earlier tests gone."""
    while f": {count} × worker" not in (checks := look())["Dask"].found:
        time.sleep(0.1)
    return checks


def test_without_a_scheduler_nothing_is_wrong(monkeypatch):
    monkeypatch.setenv("MEDDIFF_DASK_ADDRESS", "")
    assert look()["Dask"].status == "ok"


def test_a_scheduler_without_workers_is_missing(address):
    checks = look()
    assert list(checks) == ["Dask"]
    assert checks["Dask"].status == "missing"
    assert f"dask worker {address}" in checks["Dask"].remedy


def test_a_worker_like_this_machine_is_ok(address, worker):
    lake = open_lake()
    checks = look_until(1)
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["Dask"].found == f"{address}: 1 × worker, 1 × thread, 2.0 GiB each"
    assert "zarr 3." in checks["Dask versions"].found
    assert checks["Dask workers' lake"].found == f"all 1 see {lake.url}"


def test_versions_that_differ_are_named_with_their_place():
    same = dict.fromkeys(dask_scheduler.PACKAGES, "2")
    found = {
        "client": {"packages": same},
        "scheduler": {"packages": same | {"zarr": None}},  # a scheduler needs no zarr
        "workers": {"tcp://w": {"packages": same | {"zarr": "1"}}, "tcp://v": {"packages": same | {"meddiff": None}}},
    }
    check = dask_scheduler.compare(found)
    assert check.status == "warning"
    assert check.found == "meddiff not installed on tcp://v, here 2, zarr 1 on tcp://w, here 2"


def test_a_worker_without_this_package_is_missing_and_hides_no_other(address, worker):
    lake = open_lake()
    with process("-c", STRANGER, address, *OPTIONS):
        checks = look_until(2)
    package = checks["Dask workers' package"]
    assert package.status == "missing"
    assert package.found.startswith("1 of 2 do not: tcp://127.0.0.1:")
    assert "No module named 'infra'" in package.found
    assert checks["Dask workers' lake"].found == f"all 1 see {lake.url}"


def test_a_worker_on_a_machine_without_the_lake_is_missing(address, worker):
    lake = open_lake()
    with process("-c", BLIND, address, *OPTIONS):
        check = look_until(2)["Dask workers' lake"]
    assert check.status == "missing"
    assert check.found.startswith("1 of 2 do not: tcp://127.0.0.1:")
    assert check.found.endswith("(no lake there)")
    assert check.remedy == f"mount {lake.url} on every worker, or use a bucket"


def test_a_worker_that_was_stopped_is_given_up(worker, monkeypatch):
    monkeypatch.setattr(dask_scheduler, "REQUEST_SECONDS", 1)
    look_until(1)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        checks = look()
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert checks["Dask"].status == "ok"
    assert checks["Dask workers"].status == "missing"
    assert checks["Dask workers"].found == "no answer within 1 s"


def test_an_address_where_nobody_or_nothing_of_dask_answers_is_missing(monkeypatch):
    monkeypatch.setattr(dask_scheduler, "REQUEST_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for address in (f"tcp://127.0.0.1:{silent.getsockname()[1]}", "tcp://127.0.0.1:9", "nonsense"):
            monkeypatch.setenv("MEDDIFF_DASK_ADDRESS", address)
            (check,) = examine(load_settings(), [Probe("Dask", look_at_dask, 30)])
            assert check.status == "missing"
            assert check.found.startswith(f"{address}: ")
            assert "unset MEDDIFF_DASK_ADDRESS" in check.remedy
