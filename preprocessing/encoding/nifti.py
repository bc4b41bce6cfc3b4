"""Results as NIfTI: on the source's grid with its header, affines and codes; on another grid with a new header."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.nifti1 import Nifti1Extensions
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from preprocessing.encoding.derived import plain
from preprocessing.encoding.values import Scale
from preprocessing.geometry import Geometry

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
DESCRIPTION_BYTES = 79
SCANNER = 1  # code of an affine


def stored_values(path: Path) -> tuple[NDArray, float, float]:
    """The stored numbers (z, y, x) of a file, in its own type and byte order, with their slope and intercept."""
    proxy: Any = _loaded(path).dataobj
    stored = proxy.get_unscaled()
    return stored.reshape(stored.shape[:3], order="F").T, float(proxy.slope), float(proxy.inter)


def write_nifti(
    path: Path,
    array_ZYX: NDArray,
    like: Path | Geometry,
    note: str,
    *,
    scale: Scale | None = None,
    labels: bool = False,
) -> None:
    """One file (.nii, .nii.gz) of stored numbers, in the frame of another file or of a geometry.

    `scale` makes HU of the numbers; `note` goes into the header. Labels take no more than the frame from the file.
    """
    header = _header_like(like) if isinstance(like, Path) else _header_for(like)
    if labels:
        header.extensions = Nifti1Extensions()
        header["cal_min"] = header["cal_max"] = 0
        header.set_intent("label")
    header.set_data_dtype(array_ZYX.dtype)
    scale = scale or Scale()
    header.set_slope_inter(scale.slope, scale.intercept)
    header["vox_offset"] = 0
    header["descrip"] = plain(note)[:DESCRIPTION_BYTES].encode()
    stored = array_ZYX.dtype.newbyteorder(header.endianness)
    with _opened(path) as stream:
        header.write_to(stream)
        stream.write(b"\0" * (int(header["vox_offset"]) - stream.tell()))
        for plane in array_ZYX:
            stream.write(plane.astype(stored).tobytes())


def _loaded(path: Path) -> nib.Nifti1Pair:
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Pair)  # the reader has accepted it
    return image


def _header_like(path: Path) -> nib.Nifti1Header:
    """The header of a file, as that of a single file."""
    own = _loaded(path).header
    kind = Nifti2Header if own.sizeof_hdr == Nifti2Header.sizeof_hdr else nib.Nifti1Header
    header = kind(own.binaryblock, own.endianness, check=False)
    header["magic"] = kind.single_magic
    header.extensions = own.extensions
    return header


def _header_for(geometry: Geometry) -> nib.Nifti1Header:
    """A header whose affine is a geometry's; the qform is set where it can say the same."""
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ geometry.matrix[::-1, ::-1]
    affine[:3, 3] = RAS_TO_LPS @ np.asarray(geometry.origin_mm)[::-1]
    direction = np.asarray(geometry.direction)
    header = nib.Nifti1Header()
    header.set_data_shape(geometry.shape[::-1])
    header.set_zooms(geometry.spacing_mm[::-1])
    header.set_xyzt_units("mm")
    header.set_sform(affine, SCANNER)
    header.set_qform(affine, SCANNER if np.allclose(direction.T @ direction, np.eye(3), atol=1e-5) else 0)
    return header


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    """A stream to write to; gzip without name and time, so that equal results are equal bytes."""
    with path.open("wb") as file:
        if path.suffix.lower() != ".gz":
            yield file
            return
        with igzip.IGzipFile("", "wb", compresslevel=2, fileobj=file, mtime=0) as packed:
            yield packed
