"""Coarser copies of a volume: halves for the pyramid, cubes for the image level (SPEC §4).

Voxel j of a coarser grid is centred on the voxels it stands for, so halving moves the centre of voxel 0 by half a
voxel, and voxel j of a cube of n lies at (j + 0.5)·length/n − 0.5. Images are averaged over what a voxel covers
(anti-aliased), labels take the commonest or the nearest value. Odd lengths keep their last slice: it stands for itself.
"""

from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

SMALL_HU = 1 << 13  # four of them fit into int16


def downsample2(image: NDArray[np.int16]) -> NDArray[np.int16]:
    """Means of 2×2×2 blocks, rounded half up; shape (n + 1) // 2 along each axis."""
    small = image.min(initial=0) >= -SMALL_HU and image.max(initial=0) < SMALL_HU
    out = np.empty(tuple((n + 1) // 2 for n in image.shape), np.int16)
    for k, plane in enumerate(out):
        pair = image[2 * k], image[min(2 * k + 1, len(image) - 1)]
        rows = np.add(*pair, dtype=np.int16 if small else np.int32)
        columns = np.add(*_pairs(rows, 0))
        total = _pair_sums(columns) if small else np.add(*_pairs(columns, 1))
        total += 4
        total >>= 3
        plane[...] = total
    return out


def _pair_sums(columns: NDArray[np.int16]) -> NDArray[np.int32]:
    """Sums of neighbours along x: two int16 lie in one int32, which is quicker to take apart than to stride over."""
    if columns.shape[1] % 2:
        columns = np.concatenate([columns, columns[:, -1:]], axis=1)
    both = columns.view("<i4")
    return (both >> 16) + both.astype(np.int16)


def downsample2_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest id of each 2×2×2 block; of equally common ones the smallest id, background last."""
    out = np.empty(tuple((n + 1) // 2 for n in labels.shape), np.uint8)
    mixed, highest = [], []
    for k, plane in enumerate(out):
        pair = labels[2 * k], labels[min(2 * k + 1, len(labels) - 1)]
        high = _over_blocks(np.maximum, pair)
        plane[...] = _over_blocks(np.minimum, pair)
        places = np.flatnonzero(plane != high)
        mixed.append(places + k * plane.size)
        highest.append(high.ravel()[places])
    places = np.concatenate(mixed)
    lowest = out.ravel()[places]
    out.ravel()[places] = _commonest(_votes(labels, out.shape, places), lowest, np.concatenate(highest))
    return out


def _votes(labels: NDArray[np.uint8], shape: tuple[int, ...], places: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The 8 labels (8, n) of the blocks at flat places of the coarser grid; beyond the end the last one goes on."""
    at = np.unravel_index(places, shape)
    ends = [(2 * i, np.minimum(2 * i + 1, n - 1)) for i, n in zip(at, labels.shape, strict=True)]
    flat = np.ascontiguousarray(labels).ravel()
    return np.stack([flat.take(np.ravel_multi_index(corner, labels.shape)) for corner in product(*ends)])


def _over_blocks(extreme: np.ufunc, pair: tuple[NDArray, NDArray]) -> NDArray:
    """The smallest or largest value of the 2×2×2 blocks of two slices."""
    plane = extreme(*pair)
    for axis in range(2):
        plane = extreme(*_pairs(plane, axis))
    return plane


def _pairs(array: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    """The even and the odd slices along an axis; an odd length repeats its last slice."""
    along = (slice(None),) * axis
    even, odd = array[(*along, slice(0, None, 2))], array[(*along, slice(1, None, 2))]
    if array.shape[axis] % 2:
        odd = np.concatenate([odd, array[(*along, slice(-1, None))]], axis=axis)
    return even, odd


def _commonest(votes: NDArray[np.uint8], low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest of 8 votes (8, n), whose extremes are `low` and `high`; of ties the smallest, 0 as the largest."""
    for_low, for_high = ((votes == extreme).sum(0, dtype=np.int8) for extreme in (low, high))
    best = np.where((for_low > for_high) | ((for_low == for_high) & (low > 0)), low, high)
    several = for_low + for_high < len(votes)
    best[several] = _commonest_of_several(votes[:, several])
    return best


def _commonest_of_several(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same of any number of different votes."""
    ranked = np.sort(votes - np.uint8(1), axis=0)
    best, length = ranked[0].copy(), np.ones(ranked.shape[1], np.int8)
    run = length.copy()
    for earlier, later in pairwise(ranked):
        run = np.where(later == earlier, run + 1, 1).astype(np.int8)
        longer = run > length
        best[longer], length[longer] = later[longer], run[longer]
    return best + np.uint8(1)


def resize_cube(array: NDArray, size: int, labels: bool = False) -> NDArray:
    """A volume stretched to size³: area mean where it shrinks, linear where it grows; labels take the nearest voxel."""
    if labels:
        wanted = [np.minimum(((np.arange(size) + 0.5) * n / size).astype(np.intp), n - 1) for n in array.shape]
        return np.ascontiguousarray(array[np.ix_(*wanted)])
    along_z, along_y, along_x = (sparse.csr_array(resize_weights(n, size)) for n in array.shape)
    out = np.empty((size, size, size), np.float32)
    for k in range(size):
        used = slice(along_z.indptr[k], along_z.indptr[k + 1])
        plane = np.zeros(array.shape[1:], np.float32)
        for z, weight in zip(along_z.indices[used], along_z.data[used], strict=True):
            plane += weight * array[z]
        out[k] = (along_x @ (along_y @ plane).T).T
    return np.rint(out).astype(array.dtype) if array.dtype.kind in "iu" else out.astype(array.dtype)


def resize_weights(length: int, size: int) -> NDArray[np.float32]:
    """(size, length) weights with rows that sum to 1: overlap of intervals when shrinking, linear when growing."""
    factor = length / size
    voxel = np.arange(length)
    if factor > 1:
        start = np.arange(size)[:, None] * factor
        overlap = np.minimum(start + factor, voxel + 1) - np.maximum(start, voxel)
        weights = np.clip(overlap, 0, None)
    else:
        centre = np.clip((np.arange(size)[:, None] + 0.5) * factor - 0.5, 0, length - 1)
        weights = np.clip(1 - np.abs(centre - voxel), 0, None)
    weights[weights < 1e-9] = 0
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
