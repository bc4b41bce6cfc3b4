"""TotalSegmentator as a command of its own: found, checked and run in a process that may live in another environment.

The case's image goes in as NIfTI, one file of class ids on the same grid comes out. Weights are read from a local
folder and never downloaded here. The process gets a private home with the tool's usage reports switched off, so that
nothing leaves the machine and workers do not write into one another's. One runs at a time on a machine: each takes the
whole GPU, or all cores.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

from infra.doctor.check import Check
from infra.errors import UserError
from infra.processes import locked
from infra.settings import Settings
from preprocessing.recipe import Segmenter
from preprocessing.volume import Volume

COMMAND = "TotalSegmentator"
WEIGHTS = {False: (291, 292, 293, 294, 295), True: (297,)}  # numbers of the nnU-Net data sets of `total`, and if fast
CHECKPOINT = "fold_0/checkpoint_final.pth"
ANSWER_S = 300  # its imports take a while
LOOK_S = 20.0  # what somebody who only wants to know waits for them
OWN = ("PYTHONPATH", "PYTHONHOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # not the tool's


class ToolError(RuntimeError):
    """The tool failed on one case; another ingest tries it again."""


@dataclass(frozen=True)
class Tool:
    """A command that was found to be the pinned version and to have its weights."""

    command: str
    weights: Path
    device: str
    timeout_s: int
    home: Path


def find_tool(segmenter: Segmenter, settings: Settings, answer_s: float = ANSWER_S) -> Tool:
    """The tool that a recipe pins, ready to run on this machine; it gets so many seconds to name its version.

    Raises:
        UserError: the command, the pinned version or the weights are missing; the message names the remedy.
    """
    wanted = f"the recipe asks for {COMMAND} {segmenter.version}"
    remedy = (
        f"install it (pip install -c requirements.lock 'meddiff[anatomy]', or {COMMAND}=={segmenter.version} in an "
        "environment of its own) and set MEDDIFF_TOTALSEGMENTATOR to the path of its command"
    )
    command = shutil.which(settings.totalsegmentator or COMMAND)
    if command is None:
        place = f"at {settings.totalsegmentator}" if settings.totalsegmentator else "on PATH"
        raise UserError(f"{wanted}, but there is no such command {place}: {remedy}")
    found = _version(command, answer_s)
    if found != segmenter.version:
        raise UserError(f"{wanted}, but {command} answers {found!r} to --version: {remedy}")
    _check_weights(segmenter, settings.totalsegmentator_weights)
    return Tool(
        command,
        settings.totalsegmentator_weights,
        settings.totalsegmentator_device,
        settings.totalsegmentator_timeout_s,
        settings.home / "totalsegmentator",
    )


def look_at_tool(settings: Settings) -> Iterator[Check]:
    """Whether the recipe `segmented` could run here; no other recipe asks for the tool."""
    if not shutil.which(settings.totalsegmentator or COMMAND) and not settings.totalsegmentator:
        yield Check(what=COMMAND, status="ok", found="not installed: only the recipe `segmented` asks for it")
        return
    try:
        tool = find_tool(Segmenter(), settings, LOOK_S)
    except UserError as error:
        fault, _, remedy = str(error).rpartition(": ")
        yield Check(what=COMMAND, status="warning", found=fault, remedy=remedy)
        return
    yield Check(what=COMMAND, status="ok", found=f"{tool.command} on the {tool.device}, weights in {tool.weights}")


@cache
def _version(command: str, answer_s: float) -> str:
    """What the command answers to --version, or the last line of its complaint."""
    try:
        answer = subprocess.run(
            [command, "--version"], capture_output=True, text=True, timeout=answer_s, env=_environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return last_line(answer.stdout if answer.returncode == 0 else answer.stderr)


def _check_weights(segmenter: Segmenter, folder: Path) -> None:
    missing = [n for n in WEIGHTS[segmenter.fast] if not any(folder.glob(f"Dataset{n}_*/*/{CHECKPOINT}"))]
    if missing:
        task = f"{segmenter.task}_fast" if segmenter.fast else segmenter.task
        raise UserError(
            f"weights of {COMMAND} are missing in {folder} (Dataset{', Dataset'.join(map(str, missing))}): run "
            f"`totalseg_download_weights -t {task}` where there is a network and set TOTALSEG_HOME_DIR to the folder "
            "it filled (default ~/.totalsegmentator), or TOTALSEG_WEIGHTS_PATH to its nnunet/results"
        )


def arguments(tool: Tool, segmenter: Segmenter, image: Path, output: Path) -> list[str]:
    """The command line that writes the class ids of `image` (NIfTI) to `output` (.nii.gz)."""
    return [
        *(tool.command, "-i", str(image), "-o", str(output), "--ml", "--task", segmenter.task),
        *("--device", tool.device, "--nr_thr_saving", "1", "--quiet"),
        *(["--fast"] if segmenter.fast else []),
    ]


def run_tool(tool: Tool, segmenter: Segmenter, scan: Volume, output: Path) -> None:
    """Segment a scan into `output`, beside which the tool may write whatever it likes.

    Raises:
        ToolError: it took too long, failed or wrote nothing; the message ends with the last line of its complaint.
    """
    image, log = output.parent / "ct.nii", output.parent / "stderr.txt"
    write_nifti(image, scan)
    with locked(tool.home), log.open("wb") as stderr:
        process = subprocess.Popen(
            arguments(tool, segmenter, image, output),
            env=_environment(tool, output.parent / "home"),
            cwd=output.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            status = process.wait(tool.timeout_s)
        except subprocess.TimeoutExpired:
            raise ToolError(
                f"{COMMAND} took longer than {tool.timeout_s} s (MEDDIFF_TOTALSEGMENTATOR_TIMEOUT_S); {_said(log)}"
            ) from None
        finally:
            _end(process)
    if status or not output.is_file():
        raise ToolError(f"{COMMAND} ended with status {status} and {_wrote(output)}; {_said(log)}")


def write_nifti(path: Path, scan: Volume) -> None:
    """The scan's HU as an int16 NIfTI file with its whole geometry in the sform (RAS)."""
    geometry = scan.geometry
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ geometry.matrix[::-1, ::-1]
    affine[:3, 3] = to_ras @ np.asarray(geometry.origin_mm)[::-1]
    image = nib.Nifti1Image(scan.image.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def last_line(text: str) -> str:
    """The last line that says something, progress bars' carriage returns counted as line ends."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _environment(tool: Tool | None = None, home: Path | None = None) -> dict[str, str]:
    """This process's environment without what would mislead another Python; a private home where there is one."""
    env = {name: value for name, value in os.environ.items() if name not in OWN}
    if tool and home:
        home.mkdir()
        config = {"totalseg_id": "meddiff", "send_usage_stats": False, "prediction_counter": 0}
        (home / "config.json").write_text(json.dumps(config))
        env |= {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(tool.weights)}
    return env


def _end(process: subprocess.Popen) -> None:
    """Ends a process that still runs, with all that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _said(log: Path) -> str:
    line = last_line(log.read_text(errors="replace"))
    return f"it said: {line}" if line else "it said nothing"


def _wrote(output: Path) -> str:
    return "wrote a map" if output.is_file() else "wrote no map"
