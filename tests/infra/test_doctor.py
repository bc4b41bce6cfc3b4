"""The doctor's machine and folder checks, and how many probes are looked through at once."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from infra.doctor import machine
from infra.doctor.check import Check, Probe, examine, told
from infra.doctor.house import look_at_services
from infra.doctor.machine import look_at_gpu, look_at_machine
from infra.doctor.packages import look_at_packages, pinned, wrong
from infra.doctor.storage import look_at_lake
from infra.lake import open_lake
from infra.processes import free_port, spawn
from infra.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDDIFF_LAKE", "")


def found(look) -> dict[str, Check]:
    return {check.what: check for check in look(load_settings())}


def good(what: str) -> Check:
    return Check(what=what, status="ok", found="there")


def test_a_probe_that_fails_keeps_what_it_found_and_hides_no_other():
    def breaks(_: Settings):
        yield good("first")
        raise RuntimeError("the second is broken\nand more")

    probes = (Probe("broken", breaks, essential=True), Probe("other", lambda _: [good("other")]))
    checks = examine(load_settings(), probes)
    assert [(check.what, check.status) for check in checks] == [("first", "ok"), ("broken", "missing"), ("other", "ok")]
    assert checks[1].found == "the second is broken"


def test_a_probe_that_never_ends_is_given_up_after_its_time():
    release = threading.Event()

    def hangs(_: Settings):
        yield good("first")
        release.wait(60)

    checks = examine(load_settings(), (Probe("silent", hangs, 0.2), Probe("other", lambda _: [good("other")])))
    release.set()
    assert [(check.what, check.status) for check in checks] == [("first", "ok"), ("silent", "warning"), ("other", "ok")]
    assert checks[1].found == "no answer within 0.2 s"


def test_all_probes_run_at_once():
    together = threading.Barrier(8)

    def meets(_: Settings):
        together.wait(20)
        yield good("met")

    assert [check.status for check in examine(load_settings(), [Probe("one", meets, 30)] * 8)] == ["ok"] * 8


def test_a_probe_that_hangs_does_not_keep_the_process():
    script = """
import time
from infra.doctor.check import Probe, examine
from infra.settings import load_settings
print(examine(load_settings(), [Probe("silent", lambda _: time.sleep(600) or [], 0.1)])[0].found)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "no answer within 0.1 s")


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError(30, "Read-only file system", "x"), "Read-only file system"), (KeyError(), "KeyError"),
     (ValueError("one\ntwo"), "one")],
)  # fmt: skip
def test_an_error_is_told_in_one_line(error, line):
    assert told(error) == line


def test_a_machine_like_this_one_is_enough():
    checks = found(look_at_machine)
    assert list(checks) == ["Python", "cores", "memory", "disk"]
    assert {check.status for check in checks.values()} == {"ok"}
    assert int(checks["cores"].found) >= 1


def test_too_little_of_something_is_missing_with_a_remedy(monkeypatch):
    monkeypatch.setattr(machine, "MEMORY_GIB", psutil.virtual_memory().total / 2**30 + 1)
    monkeypatch.setattr(machine, "DISK_GIB", 10**9)
    monkeypatch.setattr(machine, "PYTHON", (4, 0))
    checks = found(look_at_machine)
    assert {what for what, check in checks.items() if check.status == "missing"} == {"Python", "memory", "disk"}
    assert all(check.remedy for check in checks.values() if check.status == "missing")


def tool(folder: Path, name: str, says: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{says}\n")
    (folder / name).chmod(0o755)


def test_a_card_that_a_cpu_build_of_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    tool(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(machine, "_cuda_of_torch", lambda: "")
    check = found(look_at_gpu)["GPU"]
    assert check.status == "warning"
    assert check.found == "GPU 0: NVIDIA H100, but this torch is built for the CPU"
    assert "requirements-gpu.lock" in check.remedy


def test_a_card_that_torch_does_not_see_is_a_warning(tmp_path, monkeypatch):
    tool(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(machine, "_cuda_of_torch", lambda: "13.0")
    monkeypatch.setattr(machine, "ASK_TORCH", "")
    assert "but torch sees none" in found(look_at_gpu)["GPU"].found
    monkeypatch.setattr(machine, "ASK_TORCH", "print('NVIDIA H100, 80 GiB')")
    assert found(look_at_gpu)["GPU"] == Check(what="GPU", status="ok", found="NVIDIA H100, 80 GiB")


def test_torchs_cuda_is_read_without_importing_it():
    script = "import sys, infra.doctor.machine as m; print(repr(m._cuda_of_torch()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    import torch

    assert done.stdout.split() == [repr(torch.version.cuda or ""), "False"]


def test_the_installed_packages_are_the_declared_and_pinned_ones():
    checks = found(look_at_packages)
    assert list(checks) == ["packages", "lock"]
    assert checks["packages"].status == "ok", checks["packages"].found
    assert "torch 2.13.0" in checks["packages"].found


def test_a_package_that_differs_is_named(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("# made by hand\npydantic==1.0\n\ntorch==2.13.0\nno-such-thing==1\n")
    names = wrong(pinned(lock))
    assert names[0].startswith("pydantic 2.")
    assert names[0].endswith(", not ==1.0")
    assert names[1:] == ["no-such-thing is not installed"]
    assert wrong([Requirement("torch==2.13.0")]) == []  # torch 2.13.0+cpu is what was asked for


def test_a_lake_that_is_not_there_yet_is_ok_and_is_not_made(tmp_path):
    checks = found(look_at_lake)
    assert {what: check.status for what, check in checks.items()} == {
        "lake": "ok", "lake: writing": "ok", "lake: space": "ok"
    }  # fmt: skip
    assert "none yet" in checks["lake"].found
    assert list(tmp_path.iterdir()) == []


def test_a_lake_is_written_to_and_left_as_it_was():
    lake = open_lake()
    checks = found(look_at_lake)
    assert checks["lake"].found == f"{lake.url} (id {lake.id})"
    assert checks["lake: writing"].status == "ok"
    assert [path.name for path in Path(lake.url).iterdir()] == ["lake.json"]


def test_a_lake_that_cannot_be_written_is_missing():
    lake = open_lake()
    Path(lake.url, "probe").write_text("a file where the doctor's folder should be")
    check = found(look_at_lake)["lake: writing"]
    assert check.status == "missing"
    assert check.remedy.startswith(f"let this user write in {lake.url}")


def test_a_lake_below_a_file_is_missing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDDIFF_LAKE", str(tmp_path / "file" / "lake"))
    assert found(look_at_lake)["lake: writing"].found == "cannot be written: Not a directory"


def test_a_folder_without_hard_links_can_hold_no_lake(monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    open_lake()
    monkeypatch.setattr(os, "link", no_links)
    check = found(look_at_lake)["lake: writing"]
    assert check.status == "missing"
    assert "hard link" in check.found
    assert "FAT" in check.remedy


def test_a_folder_that_is_no_lake_of_ours_is_missing():
    lake = open_lake()
    Path(lake.url, "lake.json").write_text('{"format": 99, "id": "x"}')
    assert "format 99" in found(look_at_lake)["lake"].found


def test_services_that_ended_or_keep_silent_are_named(tmp_path):
    home, port = tmp_path / "home", free_port(8600)
    assert found(look_at_services)["services"].found.startswith("none runs")
    address = f"http://127.0.0.1:{port}"
    serve = "import sys; from canned_server import canned_server as c; from time import sleep\nwith c(): sleep(60)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent)])}
    ended = spawn(home, "mlflow", [sys.executable, "-c", ""], env, address)
    silent = spawn(home, "prefect", [sys.executable, "-c", serve], env, address)
    worker = spawn(home, "worker", [sys.executable, "-c", serve], env, address)
    try:
        while ended.alive:
            time.sleep(0.02)
        checks = list(look_at_services(load_settings()))
    finally:
        for service in (silent, worker):
            psutil.Process(service.pid).kill()
    assert checks[0].found == f"worker {address}"
    assert [check.status for check in checks] == ["ok", "warning", "warning"]
    assert checks[1].found.startswith("mlflow ended; its log is ")
    assert checks[2].found.startswith(f"prefect at {address} does not answer: Connection refused; its log is ")
