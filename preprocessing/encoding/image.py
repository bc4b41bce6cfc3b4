"""Writing: Hounsfield values or a mask as a file or series with the geometry of their source.

The ending of the output's name says the format; a name without one is a folder for a DICOM series. Nothing is ever
overwritten, and what is written appears whole.
"""

import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import UserError
from preprocessing.case import Case
from preprocessing.decoding.decode import image_suffix
from preprocessing.encoding.dicom import write_series
from preprocessing.encoding.itk import write_itk
from preprocessing.encoding.nifti import write_nifti, write_nifti_like
from preprocessing.geometry import Geometry
from preprocessing.volume import Volume

MARK = "Derived by MedDiff. Not for diagnosis."
NIFTI, WRITTEN = (".nii", ".img", ".hdr"), (".nii", ".nrrd", ".mha")
FORMATS = ".nii, .nii.gz, .nrrd, .mha, or a name without an ending for a DICOM series"


@dataclass(frozen=True)
class Original:
    """What a result was made from: the case as it was found, and its audited HU (z, y, x) in the scanner's grid."""

    case: Case
    volume: Volume


def require_output(original: Case, output: Path) -> None:
    """Refuses an output that cannot be written, before any work is done for it.

    Raises:
        UserError: it is there already, its format is unknown, or it would be a series of what was none.
    """
    if output.exists():
        raise UserError(f"{output} is there already; name another output or remove it")
    if output.suffix and image_suffix(output) not in WRITTEN:
        raise UserError(f"{output.name}: this format is not written; use {FORMATS}")
    if not output.suffix and image_suffix(original.image[0]):
        raise UserError(f"{original.id} is no DICOM series, so {output.name} cannot be one; name a file: {FORMATS}")


def write_image(original: Original, hu_zyx: NDArray[np.int16], output: Path, derivation: str) -> None:
    """HU on the original's grid; voxels that did not change keep the numbers that the original stores.

    Raises:
        UserError: the output cannot be written, or the shape differs.
    """
    require_output(original.case, output)
    if hu_zyx.shape != original.volume.image.shape:
        raise UserError(f"{output.name}: {hu_zyx.shape} voxels are no result on the grid of {original.case.id}")
    source = Path(original.case.image[0])

    def write(path: Path) -> None:
        if not output.suffix:
            write_series(original.case, original.volume, hu_zyx, path, derivation)
        elif image_suffix(output) == ".nii" and image_suffix(source) in NIFTI and not is_rescaled(original.volume):
            write_nifti_like(source, hu_zyx, hu_zyx != original.volume.image, path, MARK)
        else:
            write_array(hu_zyx, original.volume.geometry, path)

    _whole(output, write)


def write_volume(array_zyx: NDArray, geometry: Geometry, output: Path) -> None:
    """An array with a geometry of its own (a mask, a map, a synthetic image) as one file.

    Raises:
        UserError: the output is there already, cannot be written, or its format is unknown.
    """
    if output.exists() or image_suffix(output) not in WRITTEN:
        raise UserError(f"{output} is there already, or no file of a known format; use another name, {FORMATS}")
    _whole(output, lambda path: write_array(array_zyx, geometry, path))


def write_array(array_zyx: NDArray, geometry: Geometry, path: Path) -> None:
    """One file, its format by the ending."""
    if image_suffix(path) == ".nii":
        write_nifti(array_zyx, geometry, path, MARK)
    else:
        write_itk(array_zyx, geometry, path)


def is_rescaled(volume: Volume) -> bool:
    """Whether the audit took the stored values for other units than HU."""
    return volume.audit is not None and (volume.audit.scale, volume.audit.offset) != (1, 0)


def _whole(output: Path, write: Callable[[Path], None]) -> None:
    try:
        with _beside(output) as path:
            write(path)
            path.rename(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}") from error


@contextmanager
def _beside(output: Path) -> Generator[Path]:
    """A name in the output's folder with its ending, gone afterwards unless it was renamed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.with_name(f".{uuid.uuid4().hex}-{output.name}")
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
