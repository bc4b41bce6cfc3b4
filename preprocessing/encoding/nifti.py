"""NIfTI-1 files: with a geometry, or in every respect like the file that the image came from."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from preprocessing.geometry import Geometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SCANNER = 1  # the code of scanner coordinates


def write_nifti(array_zyx: NDArray, geometry: Geometry, path: Path, description: str) -> None:
    """An array (z, y, x) with sform and qform of its geometry."""
    image = nib.Nifti1Image(np.ascontiguousarray(array_zyx.T), affine_of(geometry))
    image.header["descrip"] = description[:79].encode()
    image.set_qform(image.affine, SCANNER)
    image.set_sform(image.affine, SCANNER)
    image.to_filename(path)


def write_nifti_like(
    source: Path, hu_zyx: NDArray, changed_zyx: NDArray[np.bool_], path: Path, description: str
) -> None:
    """A file's header and stored numbers, but for the voxels that changed.

    Where the source's numbers cannot hold the new values, all become int16 HU.
    """
    image: Any = nib.load(source)
    stored = image.dataobj.get_unscaled()
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    shape = tuple(reversed(hu_zyx.shape))
    numbers = np.asarray(stored).reshape(shape).copy()
    wanted = (hu_zyx.T.astype(np.float64) - intercept) / slope
    changed = changed_zyx.T
    if numbers.dtype.kind in "iu":
        wanted, limits = np.rint(wanted), np.iinfo(numbers.dtype)
        if changed.any() and not limits.min <= wanted[changed].min() <= wanted[changed].max() <= limits.max:
            numbers, slope, intercept = hu_zyx.T.astype(np.int16), 1.0, 0.0
            wanted = numbers
    numbers[changed] = wanted[changed]
    header = image.header.copy()
    header["descrip"] = description[:79].encode()
    header.set_data_dtype(numbers.dtype)
    made = type(image)(numbers.reshape(image.shape), image.affine, header)
    made.set_qform(*image.get_qform(coded=True), update_affine=False)
    made.set_sform(*image.get_sform(coded=True), update_affine=False)
    made.header.set_slope_inter(slope, intercept)
    nib.save(made, path)


def affine_of(geometry: Geometry) -> NDArray[np.float64]:
    """The 4×4 affine from (x, y, z) indices to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ geometry.matrix[::-1, ::-1]
    affine[:3, 3] = LPS_TO_RAS @ np.asarray(geometry.origin_mm)[::-1]
    return affine
