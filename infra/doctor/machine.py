"""The machine itself: Python, cores, memory, disk, GPU."""

import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil

from infra.doctor.check import Check, told
from infra.processes import available_cores
from infra.settings import Settings

PYTHON = (3, 11)
MEMORY_GIB = 3.5  # what a machine of 4 GiB shows
DISK_GIB = 2.0
GPU_SECONDS = 25.0  # importing torch with CUDA from a cold disk
GPU_LOCK = "pip install -r requirements-gpu.lock"
ASK_TORCH = """
import torch
for n in range(torch.cuda.device_count()):
    p = torch.cuda.get_device_properties(n)
    print(f"{p.name}, {p.total_memory / 2**30:.0f} GiB")
"""


def look_at_machine(settings: Settings) -> Iterator[Check]:
    """Python, cores, memory and the disk of the state folder."""
    good = sys.version_info >= PYTHON
    remedy = "" if good else "make a new environment with Python 3.11 or newer"
    yield Check(what="Python", status="ok" if good else "missing", found=sys.version.split()[0], remedy=remedy)
    yield Check(what="cores", status="ok", found=f"{available_cores()}")
    memory = psutil.virtual_memory().total / 2**30
    yield enough("memory", memory, MEMORY_GIB, f"{memory:.1f} GiB", "4 GiB are needed: take a larger machine")
    yield look_at_space("disk", settings.home)


def look_at_space(what: str, folder: Path) -> Check:
    """The free space where a folder is, or will be made."""
    place = existing(folder)
    free = shutil.disk_usage(place).free / 2**30
    remedy = f"{DISK_GIB:g} GiB are needed: free some, or move MEDDIFF_HOME and MEDDIFF_LAKE to a larger disk"
    return enough(what, free, DISK_GIB, f"{free:.1f} GiB free at {folder}", remedy)


def enough(what: str, amount: float, least: float, found: str, remedy: str) -> Check:
    """Missing where there is less than the least."""
    if amount >= least:
        return Check(what=what, status="ok", found=found)
    return Check(what=what, status="missing", found=found, remedy=remedy)


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def look_at_gpu(_: Settings) -> Iterator[Check]:
    """The GPUs that torch sees; without one the tiny presets run, so it is never missing."""
    cards = _listed_cards()
    if not _cuda_of_torch():
        yield _without_cuda(cards)
        return
    seen = _run([sys.executable, "-c", ASK_TORCH], GPU_SECONDS - 1).splitlines()
    if seen:
        yield Check(what="GPU", status="ok", found="; ".join(seen))
    elif cards:
        remedy = "compare the driver that nvidia-smi names with the CUDA of torch; see CUDA_VISIBLE_DEVICES"
        yield Check(what="GPU", status="warning", found=f"{'; '.join(cards)}, but torch sees none", remedy=remedy)
    else:
        yield _none()


def _without_cuda(cards: list[str]) -> Check:
    if not cards:
        return _none()
    found = f"{'; '.join(cards)}, but this torch is built for the CPU"
    return Check(what="GPU", status="warning", found=found, remedy=GPU_LOCK)


def _none() -> Check:
    return Check(what="GPU", status="ok", found="none: the tiny presets run on the CPU, the paper presets need one")


def _cuda_of_torch() -> str:
    """The CUDA version that torch was built with, read without importing it; "" for a CPU build or none."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return str(runpy.run_path(str(file)).get("cuda") or "") if file and file.is_file() else ""


def _listed_cards() -> list[str]:
    """What `nvidia-smi -L` lists, without the cards' ids."""
    tool = shutil.which("nvidia-smi")
    lines = _run([tool, "-L"], 5).splitlines() if tool else []
    return [line.partition(" (UUID")[0] for line in lines if line.startswith("GPU ")]


def _run(command: list[str], seconds: float) -> str:
    """What a command prints; "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"{Path(command[0]).name} failed: {told(error)}") from error
    return done.stdout if done.returncode == 0 else ""
