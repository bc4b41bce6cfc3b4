"""The body: found by thresholding on a coarse grid, then given to the voxels that no organ owns.

Air outside is told from air inside slice by slice (a lung never touches the border of an axial slice through air, the
mouth does), thin things such as the table are opened away, and only a shell around the skin is decided at full
resolution. Where the source's labels are complete the rest of the body is 118, otherwise it is 119, unknown.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.anatomy import BACKGROUND, BODY, UNKNOWN
from preprocessing.case import AnatomyKind

COARSE_MM = 4.0
OPEN_AIR_HU = -960  # air lies below it on average
AIR_HU = -930  # doubtful air, too; lung cut by the border of the field of view lies above
CLOSED_SHARE = 0.1
SMALLEST_SHARE = 0.05  # of the largest piece: legs and arms stay, a piece of the table goes
IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
CUBE = np.ones((3, 3, 3), bool)


def body_planes(image: NDArray[np.int16], spacing_mm: float, threshold_hu: int = -800) -> Iterator[NDArray[np.bool_]]:
    """Axial slices (y, x) of the body mask of `image` (int16 HU, z, y, x, isotropic), lungs and bowel gas included."""
    factor = max(1, round(COARSE_MM / spacing_mm))
    coarse = coarse_body(block_mean(image, factor), threshold_hu)
    if factor == 1:
        yield from coarse
        return
    inner = ndimage.binary_erosion(coarse, CUBE, border_value=1)
    outer = ndimage.binary_dilation(coarse, CUBE)
    for z, plane in enumerate(image):
        if z % factor == 0:
            surely, perhaps = (_upsample(mask[z // factor], factor, plane.shape) for mask in (inner, outer))
        mask = plane >= threshold_hu
        mask &= perhaps
        mask |= surely
        yield mask


def body_mask(image: NDArray[np.int16], spacing_mm: float, threshold_hu: int = -800) -> NDArray[np.bool_]:
    """True inside the patient: the slices of `body_planes` in one array of the shape of `image`."""
    return np.stack(list(body_planes(image, spacing_mm, threshold_hu)))


def coarse_body(hu: NDArray, threshold_hu: int) -> NDArray[np.bool_]:
    """The body on a grid of about 4 mm: not outside air, without thin and small pieces."""
    body = ~_outside_air(hu, threshold_hu)
    padded = np.pad(body, 2, mode="edge")
    opened = ndimage.binary_erosion(padded, CUBE)
    pieces, count = ndimage.label(opened)
    if count == 0:
        return body
    sizes = np.bincount(pieces.ravel())[1:]
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= SMALLEST_SHARE * sizes.max()))
    grown = ndimage.binary_dilation(kept, CUBE, iterations=2) & padded
    return grown[2:-2, 2:-2, 2:-2]


def _outside_air(hu: NDArray, threshold_hu: int) -> NDArray[np.bool_]:
    """Air that is connected, within its axial slice, to the slice's border.

    Air of doubtful HU (foam, scatter, a lung cut by the field of view) is decided once for all slices it runs through:
    it is lung where it is dense, or closed in by the body in other slices.
    """
    pieces, count = ndimage.label(hu < threshold_hu, structure=IN_PLANE)
    border = np.zeros(count + 1, bool)
    for edge in (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1]):
        border[edge.ravel()] = True
    border[0] = False
    open_air = (border & (_piece_means(hu, pieces, count) < OPEN_AIR_HU))[pieces]
    doubtful, number = ndimage.label((pieces > 0) & ~open_air)
    closed = _piece_means(~border[pieces], doubtful, number) > CLOSED_SHARE
    foam = ~closed & (_piece_means(hu, doubtful, number) < AIR_HU)
    foam[0] = False
    return open_air | (foam[doubtful] & border[pieces])


def _piece_means(hu: NDArray, pieces: NDArray, count: int) -> NDArray[np.float64]:
    """Mean of every piece, padding counted as air; index 0 is what belongs to none."""
    flat = pieces.ravel()
    total = np.bincount(flat, np.maximum(hu, -1024).ravel(), count + 1)
    return total / np.maximum(np.bincount(flat, minlength=count + 1), 1)


def block_mean(image: NDArray, factor: int) -> NDArray[np.float32]:
    """Means of factor³ blocks, float32; blocks that stick out repeat the last voxels."""
    if factor == 1:
        return image.astype(np.float32)
    out = image
    for axis in range(3):
        short = -out.shape[axis] % factor
        if short:
            out = np.pad(out, [(0, short if a == axis else 0) for a in range(3)], mode="edge")
        shape = [*out.shape[:axis], out.shape[axis] // factor, factor, *out.shape[axis + 1 :]]
        out = out.reshape(shape).mean(axis + 1, dtype=np.float32)
    return out


def _upsample(mask: NDArray[np.bool_], factor: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    for axis, length in enumerate(shape):
        mask = mask.take(np.arange(length) // factor, axis)
    return mask


def complete_anatomy(body: Iterable[NDArray[np.bool_]], anatomy: NDArray[np.uint8], kind: AnatomyKind) -> None:
    """Fills a map of ids 0-119 (uint8, z, y, x) in place: the body that no organ owns becomes 118 (`full`) or 119.

    `body` is the mask, slice by slice. 118 and 119 in the map mean "body without a name" and are decided anew; organs
    outside the mask stay; all else is 0.
    """
    rest = np.uint8(BODY if kind == "full" else UNKNOWN)
    for plane, inside in zip(anatomy, body, strict=True):
        unnamed = (plane == BACKGROUND) | (plane >= BODY)
        np.copyto(plane, inside * rest, where=unnamed)
