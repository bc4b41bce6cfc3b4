"""Files that a converter must refuse, each broken in one way that happens in practice."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocessing.geometry import Geometry
from preprocessing.sources.phantom.files import series_names, write_image, write_series, write_slice

_SHAPE = (24, 32, 40)
_SLICES = series_names(_SHAPE[0])
_MISSING = slice(11, 13)
_GEOMETRY = Geometry(_SHAPE, (5.0, 4.0, 4.0), (-60.0, -64.0, -80.0))


class Broken(NamedTuple):
    """How a broken case is written (into its own folder), and what a listing names as image and label files."""

    write: Callable[[Path], None]
    image: tuple[str, ...]
    label: str = ""


def _ball() -> NDArray[np.int16]:
    """A water ball with bone in air: what a healthy small CT could look like, in HU."""
    z, y, x = np.ogrid[-1 : 1 : _SHAPE[0] * 1j, -1 : 1 : _SHAPE[1] * 1j, -1 : 1 : _SHAPE[2] * 1j]
    radius = np.sqrt(z**2 + y**2 + x**2)
    noise = np.random.default_rng(0).normal(0, 10, _SHAPE)
    return (np.where(radius < 0.2, 600, np.where(radius < 0.9, 40, -1000)) + noise).round().astype(np.int16)


def _text(folder: Path) -> None:
    (folder / "ct.nii.gz").write_text("This is no image: the download answered with a page of text.\n")


def _truncated(folder: Path) -> None:
    write_image(folder / "ct.nii.gz", _ball(), _GEOMETRY)
    whole = (folder / "ct.nii.gz").read_bytes()
    (folder / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])


def _magnetic() -> NDArray[np.int16]:
    """Signal 0-800 with noisy zero background, as of an MR image."""
    noise = np.abs(np.random.default_rng(1).normal(0, 12, _SHAPE))
    signal = np.where(_ball() > -500, 420 + 180 * np.sin(np.arange(_SHAPE[2]) / 5), 0)
    return np.clip(signal + noise, 0, 800).astype(np.int16)


def _mr_series(folder: Path) -> None:
    write_series(folder / "mr", _magnetic(), _GEOMETRY, "broken-mr", "broken-mr", modality="MR")


def _missing_slices(folder: Path) -> None:
    write_series(folder / "ct", _ball(), _GEOMETRY, "broken-gap", "broken-gap")
    for name in _SLICES[_MISSING]:
        (folder / "ct" / name).unlink()


def _mr_nifti(folder: Path) -> None:
    write_image(folder / "ct.nii.gz", _magnetic(), _GEOMETRY, "RAS")


def _flat(folder: Path) -> None:
    write_slice(folder / "ct.nii.gz", _ball()[12], 4.0)


def _other_label(folder: Path) -> None:
    write_image(folder / "ct.nii.gz", _ball(), _GEOMETRY)
    small = Geometry((12, 16, 20), (5.0, 4.0, 4.0), (900.0, 0.0, 0.0))
    write_image(folder / "anatomy.nii.gz", (_ball()[::2, ::2, ::2] > 0).astype(np.uint8) * 5, small)


def _eight_bit(folder: Path) -> None:
    grey = np.clip((_ball() + 160.0) * (255 / 400), 0, 255).astype(np.uint8)
    write_image(folder / "ct.nii.gz", grey, _GEOMETRY)


BROKEN: dict[str, Broken] = {
    "text": Broken(_text, ("ct.nii.gz",)),
    "truncated": Broken(_truncated, ("ct.nii.gz",)),
    "mr-series": Broken(_mr_series, tuple(f"mr/{name}" for name in _SLICES)),
    "mr-nifti": Broken(_mr_nifti, ("ct.nii.gz",)),
    "two-dimensional": Broken(_flat, ("ct.nii.gz",)),
    "other-label": Broken(_other_label, ("ct.nii.gz",), "anatomy.nii.gz"),
    "eight-bit": Broken(_eight_bit, ("ct.nii.gz",)),
    "missing-slices": Broken(_missing_slices, tuple(f"ct/{name}" for name in _SLICES if name not in _SLICES[_MISSING])),
}


def write_broken(directory: Path) -> list[Path]:
    """One folder per way of being broken, under `directory`; returns the folders."""
    folders = []
    for name, broken in BROKEN.items():
        folder = directory / name
        folder.mkdir(parents=True)
        broken.write(folder)
        folders.append(folder)
    return folders
