"""Decoding: from a case's files to Hounsfield values, labels and geometry, in the scanner's own grid.

One function a question: what does this image hold, what do these labels mean on its grid, what is the whole case. The
formats have a reader each; nothing here resamples the image, and nothing is guessed: an image that does not say where
left is, or a label that lies elsewhere, is refused with the values that disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import Case, CaseError, Stated
from preprocessing.decoding.dicom import read_series
from preprocessing.decoding.dicom_header import is_dicom
from preprocessing.decoding.itk import read_itk
from preprocessing.decoding.labels import read_labels
from preprocessing.decoding.nifti import read_nifti
from preprocessing.decoding.raster import Raster, to_int16
from preprocessing.geometry import Geometry
from preprocessing.resample import resample_onto
from preprocessing.volume import Volume

LARGEST_FRACTION = 10  # a z-score at most; fat lies near -100 HU
READERS = {
    ".nii": read_nifti,
    ".hdr": read_nifti,
    ".img": read_nifti,
    ".nrrd": read_itk,
    ".nhdr": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
}


@dataclass(frozen=True)
class Decoded:
    """HU as stored, int16 (z, y, x), with its geometry; `modality` is "CT" where the format says so, else ""."""

    array: NDArray[np.int16]
    geometry: Geometry
    modality: str = ""
    findings: tuple[str, ...] = ()


def image_suffix(path: str | Path) -> str:
    """The ending that names the format of an image file, '' for DICOM and everything else."""
    name = Path(path).name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return suffix if suffix in READERS and (suffix == ".nii" or not name.endswith(".gz")) else ""


def read_raster(paths: Sequence[str], stack: int = 0) -> Raster:
    """What one image file, or the files of one DICOM series, say; `stack` as in `Case`.

    Raises:
        CaseError: a file is missing, damaged, not three-dimensional or no CT.
    """
    for path in paths:
        if not Path(path).is_file():
            raise CaseError(f"{Path(path).name} is not there any more; list the source again.")
    suffix = image_suffix(paths[0])
    if not suffix:
        return read_series([Path(path) for path in paths], stack)
    if len(paths) > 1:
        raise CaseError(f"{Path(paths[0]).name} and {len(paths) - 1} more files are given as one image; give one file.")
    return READERS[suffix](Path(paths[0]))


def decode_image(paths: Sequence[str], stack: int = 0, stated: Stated | None = None) -> Decoded:
    """The HU of one image, rounded to int16, and its geometry; padding values are still in it.

    Raises:
        CaseError: see `read_raster`; or the image is normalised, has another spacing than stated, or does not say which
            side is left.
    """
    raster = read_raster(paths, stack)
    if stated is not None:
        raster = as_stated(raster, stated, Path(paths[0]).name)
    _refuse_fractions(raster, Path(paths[0]).name)
    raster = to_int16(raster)
    if not raster.oriented:
        raise CaseError(
            f"{Path(paths[0]).name} does not say how it is oriented (NIfTI: sform and qform codes are 0; NRRD: no "
            "space), and readers disagree on its left and right; write the orientation into its header."
        )
    return Decoded(raster.array, raster.geometry, raster.modality, raster.findings)


def as_stated(raster: Raster, stated: Stated, name: str) -> Raster:
    """The raster in HU by the slope and intercept that a table of its data set says.

    Raises:
        CaseError: the file's spacing is not the table's.
    """
    spacing = raster.geometry.spacing_mm
    if stated.spacing_mm and not np.allclose(spacing, stated.spacing_mm, rtol=0.01):
        own, table = (" x ".join(f"{mm:.4g}" for mm in triple) for triple in (spacing, stated.spacing_mm))
        raise CaseError(
            f"{name}: its header says {own} mm (z, y, x), the data set's table says {table} mm; bring a release with "
            "corrected headers."
        )
    rescaled = raster.array * np.float32(stated.slope) + np.float32(stated.intercept)
    note = f"HU = {stated.slope:g} x stored {stated.intercept:+g}, as the data set's table says"
    return replace(raster, array=rescaled, findings=(*raster.findings, note))


def _refuse_fractions(raster: Raster, name: str) -> None:
    """Refuses a normalised image before rounding makes a mask of it.

    Raises:
        CaseError: nothing in it is as far from 0 as fat or air is.
    """
    if raster.array.dtype.kind != "f":
        return
    low, high = float(np.nanmin(raster.array)), float(np.nanmax(raster.array))
    if -LARGEST_FRACTION < low < high < LARGEST_FRACTION:
        raise CaseError(
            f"{name}: values run from {low:g} to {high:g}, fractions of a range that nobody wrote down; give the image "
            "in HU."
        )


def decode_labels(
    case: Case, geometry: Geometry
) -> tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None, tuple[str, ...]]:
    """The case's anatomy (ids 0-119; 0 where nothing is named) and lesion (0/1) on the image's grid, and findings.

    Raises:
        CaseError: a label is unreadable or lies on another grid.
    """
    return read_labels(case, geometry, lambda path: read_raster([path]))


def read_image(case: Case) -> Volume:
    """The case's image alone in its source grid: HU as stored, neither audited nor resampled.

    Raises:
        CaseError: the case was listed with a problem, or its image cannot be used.
    """
    if case.problem:
        raise CaseError(case.problem)
    image = decode_image(case.image, case.stack, case.stated)
    return Volume(image=image.array, geometry=image.geometry, findings=(*case.notes, *image.findings))


def image_files(path: str) -> list[str]:
    """The files of an image that is given by one path: the file, or the DICOM files of a folder, sorted."""
    if not Path(path).is_dir():
        return [path]
    return [str(file) for file in sorted(Path(path).iterdir()) if file.is_file() and is_dicom(file)]


def read_companion(path: str, geometry: Geometry) -> NDArray[np.int16]:
    """A further image of a case on the grid of its image; resampled where it has its own. A folder is a DICOM series.

    Raises:
        CaseError: it cannot be used.
    """
    files = image_files(path)
    if not files:
        raise CaseError(f"{Path(path).name} holds no DICOM file; list the source again.")
    other = decode_image(files)
    if other.geometry.shape == geometry.shape and np.allclose(other.geometry.corners(), geometry.corners(), atol=0.01):
        return other.array
    return resample_onto(other.array, other.geometry, geometry)
