"""What every benchmark needs: a real volume, and the time that a piece of work takes."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from infra.errors import UserError
from preprocessing.decoding.decode import read_image
from preprocessing.resample import resample
from preprocessing.sources.folder import FolderSource
from preprocessing.volume import Volume

Result = TypeVar("Result")


def real_volume(data: Path, name: str, spacing_mm: float) -> Volume:
    """The CT in the folder `name` of `data`, resampled.

    Raises:
        UserError: there is no such folder.
    """
    if not (data / name).is_dir():
        raise UserError(f"{data} holds no {name}: --data takes the folder of real CTs that the tests use")
    return resample(read_image(FolderSource(path=str(data / name)).cases()[0]), spacing_mm)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """The seconds that one call takes, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of several calls."""
    return median(timed(work)[0] for _ in range(repeats))
