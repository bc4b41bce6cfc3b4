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
TISSUE_HU = -500  # a coarse voxel half of air; thin covers and mattresses average to less
LUNG_HU = -900  # the mean of a lung that the field of view cuts in half; foam lies below it
LUNG_CONTACT = 0.35  # measured: lungs up to 0.2, air between a leg and the table from 0.5
SMALLEST_SHARE = 0.05  # of the largest piece: legs and arms stay, a piece of the table goes
SHEET_MM = 2.0  # half of what cloth on the skin may be thick, to be removed
IN_PLANE = np.zeros((3, 3, 3), bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
CUBE = np.ones((3, 3, 3), bool)


def body_planes(image: NDArray[np.int16], spacing_mm: float, threshold_hu: int = -800) -> Iterator[NDArray[np.bool_]]:
    """Axial slices (y, x) of the body mask of `image` (int16 HU, z, y, x, isotropic), lungs and bowel gas included."""
    factor = max(1, round(COARSE_MM / spacing_mm))
    coarse = coarse_body(block_mean(image, factor), threshold_hu)
    inner, outer = (_widened(coarse, combine) for combine in (np.logical_and, np.logical_or))
    for z in range(0, len(image), factor):
        surely, perhaps = (_upsample(mask[z // factor], factor, image.shape[1:]) for mask in (inner, outer))
        slab = image[z : z + factor] >= threshold_hu
        slab &= perhaps
        slab |= surely
        yield from _open_in_plane(slab, round(SHEET_MM / spacing_mm))


def body_mask(image: NDArray[np.int16], spacing_mm: float, threshold_hu: int = -800) -> NDArray[np.bool_]:
    """True inside the patient: the slices of `body_planes` in one array of the shape of `image`."""
    return np.stack(list(body_planes(image, spacing_mm, threshold_hu)))


def coarse_body(hu: NDArray, threshold_hu: int) -> NDArray[np.bool_]:
    """The body on a grid of about 4 mm: not outside air, without thin and small pieces."""
    body = ~_outside_air(hu, threshold_hu)
    padded = np.pad(body, 1, mode="edge")
    pieces, count = ndimage.label(_widened(padded, np.logical_and))
    if count == 0:
        return body
    sizes = np.bincount(pieces.ravel())[1:]
    kept = np.append(False, sizes >= SMALLEST_SHARE * sizes.max())[pieces]
    return _widened(kept, np.logical_or)[1:-1, 1:-1, 1:-1]


def _outside_air(hu: NDArray, threshold_hu: int) -> NDArray[np.bool_]:
    """Air that is connected, within its axial slice, to the slice's border, but for lungs that the border cuts.

    Air with a corner of the slice is outside. The rest is decided once for all slices it runs through: a cut lung is
    dense, or the border takes little of it (border voxels over the root of the area, so that its size does not matter).
    """
    pieces, count = ndimage.label(hu < TISSUE_HU, structure=IN_PLANE)
    open_air = np.zeros(count + 1, bool)
    open_air[pieces[:, [[0], [-1]], [0, -1]].ravel()] = True
    open_air[0] = False
    border = np.ones(hu.shape, bool)
    border[:, 1:-1, 1:-1] = False
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    contact = np.bincount(pieces[border], minlength=count + 1) / np.sqrt(np.maximum(area, 1))
    doubtful, number = ndimage.label((pieces > 0) & ~open_air[pieces])
    air = np.where(hu < threshold_hu, doubtful, 0)
    dense = _piece_means(hu, air, number) > LUNG_HU
    cut_open = (_piece_means(contact[pieces], doubtful, number) > LUNG_CONTACT) & ~dense
    cut_open[0] = False
    return open_air[pieces] | cut_open[doubtful]


def _piece_means(hu: NDArray, pieces: NDArray, count: int) -> NDArray[np.float64]:
    """Mean of every piece, padding counted as air; index 0 is what belongs to none."""
    flat = pieces.ravel()
    total = np.bincount(flat, np.maximum(hu, -1024).ravel(), count + 1)
    return total / np.maximum(np.bincount(flat, minlength=count + 1), 1)


def block_mean(image: NDArray, factor: int) -> NDArray[np.float32]:
    """Means of factor³ blocks, float32; blocks that stick out repeat the last voxels."""
    if factor == 1:
        return image.astype(np.float32)
    out = _slab_means(image, factor)
    for axis in (1, 2):
        short = -out.shape[axis] % factor
        if short:
            out = np.pad(out, [(0, short if a == axis else 0) for a in range(3)], mode="edge")
        shape = [*out.shape[:axis], out.shape[axis] // factor, factor, *out.shape[axis + 1 :]]
        out = out.reshape(shape).mean(axis + 1, dtype=np.float32)
    return out


def _slab_means(image: NDArray, factor: int) -> NDArray[np.float32]:
    """Means of `factor` slices each; the last slice stands for those that are missing."""
    out = np.empty((-(-len(image) // factor), *image.shape[1:]), np.float32)
    for k, plane in enumerate(out):
        slab = image[k * factor : (k + 1) * factor]
        plane[...] = slab[0]
        for z in range(1, factor):
            plane += slab[min(z, len(slab) - 1)].astype(np.float32)
        plane /= factor
    return out


def _open_in_plane(slab: NDArray[np.bool_], reach: int) -> Iterator[NDArray[np.bool_]]:
    """Every slice opened with a square of 2 reach + 1 voxels; beyond its border it goes on as it is there.

    All slices are opened at once, as the bits of one.
    """
    bits = np.zeros(slab.shape[1:], np.min_scalar_type((1 << len(slab)) - 1))
    for number, plane in enumerate(slab):
        bits |= plane.astype(bits.dtype) << number
    for combine in (np.bitwise_and, np.bitwise_or):
        for axis in (0, 1) * reach:
            _combine_neighbours(bits, combine, axis)
    for number in range(len(slab)):
        yield (bits & (1 << number)) != 0


def _widened(mask: NDArray[np.bool_], combine: np.ufunc) -> NDArray[np.bool_]:
    """A mask dilated (`logical_or`) or eroded (`logical_and`) by a cube of 3 voxels; what lies outside has no say."""
    out = mask.copy()
    for axis in range(mask.ndim):
        _combine_neighbours(out, combine, axis)
    return out


def _combine_neighbours(array: NDArray, combine: np.ufunc, axis: int) -> None:
    """Every voxel becomes itself combined with its two neighbours along an axis, in place."""
    old, new = (each.swapaxes(0, axis) for each in (array.copy(), array))
    combine(new[1:], old[:-1], out=new[1:])
    combine(new[:-1], old[1:], out=new[:-1])


def _upsample(mask: NDArray[np.bool_], factor: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    for axis in (1, 0):
        mask = mask.take(np.arange(shape[axis]) // factor, axis)
    return mask


def complete_anatomy(body: Iterable[NDArray[np.bool_]], anatomy: NDArray[np.uint8], kind: AnatomyKind) -> None:
    """Fills a map of ids 0-119 (uint8, z, y, x) in place: the body that no organ owns becomes 118 (`full`) or 119.

    `body` is the mask, slice by slice. 118 and 119 in the map mean "body without a name" and are decided anew; organs
    outside the mask stay; all else is 0.
    """
    rest = np.uint8(BODY if kind == "full" else UNKNOWN)
    for plane, inside in zip(anatomy, body, strict=True):
        named = (plane > BACKGROUND) & (plane < BODY)
        plane *= named.view(np.uint8)
        plane += (inside & ~named).view(np.uint8) * rest
