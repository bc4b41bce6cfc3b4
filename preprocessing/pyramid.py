"""Coarser copies of a volume: halves for the pyramid, cubes for the image level (SPEC §4).

Voxel j of a coarser grid is centred on the voxels it stands for, so halving moves the centre of voxel 0 by half a
voxel, and voxel j of a cube of n lies at (j + 0.5)·length/n − 0.5. Images are averaged over what a voxel covers
(anti-aliased), labels take the commonest or the nearest value. Odd lengths keep their last slice: it stands for itself.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def downsample2(image: NDArray[np.int16]) -> NDArray[np.int16]:
    """Means of 2×2×2 blocks, rounded half up; shape (n + 1) // 2 along each axis."""
    out = np.empty(tuple((n + 1) // 2 for n in image.shape), np.int16)
    for k in range(len(out)):
        total = image[2 * k].astype(np.int32) + image[min(2 * k + 1, len(image) - 1)]
        for axis in range(2):
            even, odd = _pairs(total, axis)
            total = even + odd
        out[k] = (total + 4) >> 3
    return out


def downsample2_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest id of each 2×2×2 block; of equally common ones the smallest id, background last."""
    out = np.empty(tuple((n + 1) // 2 for n in labels.shape), np.uint8)
    for k, plane in enumerate(out):
        pair = labels[2 * k], labels[min(2 * k + 1, len(labels) - 1)]
        low, high = (_over_blocks(extreme, pair) for extreme in (np.minimum, np.maximum))
        plane[...] = low
        mixed = low != high
        if mixed.any():
            quarters = [quarter for half in pair for row in _pairs(half, 0) for quarter in _pairs(row, 1)]
            plane[mixed] = _commonest(np.stack([quarter[mixed] for quarter in quarters]))
    return out


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


def _commonest(votes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest of 8 votes (8, n); of ties the smallest id, 0 counting as the largest."""
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
