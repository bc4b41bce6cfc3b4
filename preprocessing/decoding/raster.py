"""A raster: what one image file says, before anyone asks whether it is a CT.

Readers of every format answer in this form: the stored numbers after the format's own rescaling, and a checked
geometry. Geometry that cannot be a patient's is refused. Axes that rounding has bent from a right angle are set
upright; axes that truly lean (gantry tilt) are kept as they are, and resampled later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preprocessing.case import CaseError
from preprocessing.geometry import Geometry

SPACING_LIMITS_MM = (0.05, 30.0)
MAX_EXTENT_MM = 3000.0
MAX_VOXELS = 4_000_000_000
SLIGHT_SKEW = 1e-4  # cosine between two axes; less is not worth a finding
UPRIGHT_WITHIN = 0.25  # of the smallest spacing: how far a corner may move about the centre
MAX_SKEW = 0.7
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Raster:
    """Stored values (z, y, x) in a native dtype and their geometry; `oriented` is False where the file does not say."""

    array: NDArray
    geometry: Geometry
    modality: str = ""
    oriented: bool = True
    findings: tuple[str, ...] = ()


def checked_geometry(
    shape: Sequence[int], matrix: ArrayLike, origin_mm: ArrayLike, name: str
) -> tuple[Geometry, tuple[str, ...]]:
    """The geometry of a shape, a 3×3 voxel-step matrix (columns, LPS, z, y, x order) and an origin, with findings.

    Raises:
        CaseError: spacing, extent or direction cannot belong to a patient.
    """
    steps, origin = np.asarray(matrix, float), np.asarray(origin_mm, float)
    if not (np.isfinite(steps).all() and np.isfinite(origin).all()):
        raise CaseError(f"{name}: the header's affine is not finite; export the image again.")
    spacing = np.linalg.norm(steps, axis=0)
    _check_size(shape, spacing, name)
    last = np.asarray(shape) - 1
    direction, findings = _upright(steps / spacing, last * spacing, spacing.min(), name)
    origin = origin + np.round((steps - direction * spacing) @ last / 2, 9)  # about the centre
    geometry = Geometry.from_dict(
        {
            "shape": shape,
            "spacing_mm": spacing,
            "origin_mm": origin + 0.0,
            "direction": np.round(direction, 9) + 0.0,
        }
    )
    return geometry, findings


def _check_size(shape: Sequence[int], spacing: NDArray, name: str) -> None:
    """Refuses a spacing or an extent that no CT has."""
    low, high = SPACING_LIMITS_MM
    shown = " x ".join(f"{s:g}" for s in spacing)
    if (spacing < low).any() or (spacing > high).any():
        raise CaseError(
            f"{name}: spacing {shown} mm (z, y, x) lies outside {low:g} to {high:g} mm; correct the header."
        )
    extent = max(n * s for n, s in zip(shape, spacing, strict=True))
    if extent > MAX_EXTENT_MM or int(np.prod([int(n) for n in shape])) > MAX_VOXELS:
        sizes = " x ".join(str(n) for n in shape)
        raise CaseError(
            f"{name}: {sizes} voxels of {shown} mm (z, y, x) are larger than a patient ({extent:.0f} mm); "
            "correct the spacing in the header."
        )


def _upright(
    direction: NDArray, extent_mm: NDArray, finest_mm: float, name: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The nearest orthonormal direction (polar factor; Higham 1986) where hardly a voxel moves, else the given one.

    Which of the two was taken is a finding; axes that collapse are refused.
    """
    skew = float(np.abs(direction.T @ direction - np.eye(3)).max())
    if skew > MAX_SKEW:
        raise CaseError(f"{name}: two image axes are nearly parallel (cosine {skew:.2f}); correct the directions.")
    left, _, right = np.linalg.svd(direction)
    octants = np.array(list(product((-0.5, 0.5), repeat=3))) * extent_mm
    moved = np.linalg.norm(octants @ (left @ right - direction).T, axis=1).max()
    leaning = f"axes are {np.degrees(np.arcsin(skew)):.2f} degrees from a right angle"
    if moved > UPRIGHT_WITHIN * finest_mm:
        return direction, (f"{leaning}: resampled, not sheared",)
    bent = f"{leaning}: set upright, which moves voxels by up to {moved:.2f} mm"
    return left @ right, (bent,) if skew > SLIGHT_SKEW else ()


def to_int16(raster: Raster) -> Raster:
    """The raster with values rounded to int16, slab by slab; what is not finite becomes −1024, the rest is clipped."""
    array = raster.array
    if array.dtype == np.int16:
        return replace(raster, array=np.ascontiguousarray(array))
    out = np.empty(array.shape, np.int16)
    holes = clipped = 0
    for plane, rounded in zip(array, out, strict=True):
        if INT16.min <= plane.min() <= plane.max() <= INT16.max:
            np.rint(plane, out=rounded, casting="unsafe")
            continue
        bad = ~np.isfinite(plane)
        holes += int(bad.sum())
        whole = np.rint(np.where(bad, -1024, plane))
        clipped += int(((whole < INT16.min) | (whole > INT16.max)).sum())
        rounded[...] = np.clip(whole, INT16.min, INT16.max)
    notes = [f"{holes} voxels were not finite and became -1024 HU"] if holes else []
    notes += [f"{clipped} voxels lay outside int16 and were clipped"] if clipped else []
    return replace(raster, array=out, findings=(*raster.findings, *notes))
