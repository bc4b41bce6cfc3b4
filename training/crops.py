"""Crops: where a training sample lies on its region, and how it is read from the stored pyramid (SPEC §4).

A region's canvas is its volume in level-0 voxels, padded symmetrically with air where a crop is larger. The image level
sees the whole region resized, the wide level a crop of twice the patch at half the resolution, the patch level a native
crop. Wide crops begin on even voxels of the stored volume, so that level 1 of the pyramid holds exactly their 2×2×2
means.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preprocessing.pyramid import downsample2, downsample2_labels, resize_cube
from preprocessing.regions import RegionExtent
from preprocessing.store import StoredCase

Level = Literal["image", "wide", "patch"]
LEVELS: tuple[Level, ...] = get_args(Level)
AIR_HU = -1024
LABELS = ("anatomy", "lesion")
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Canvas:
    """A region of a stored volume and its padding: all z, y, x in level-0 voxels.

    `origin_zyx` is the region's first voxel in the stored volume, `shape_zyx` its size, `pad_zyx` the air before it,
    `canvas_zyx` the size of the whole.
    """

    origin_zyx: Triple
    shape_zyx: Triple
    pad_zyx: Triple
    canvas_zyx: Triple

    def start_for(self, centre_zyx: ArrayLike, size: int, even: bool = False) -> Triple:
        """Where a crop of an edge begins on the canvas so that its centre is nearest to a voxel of the region."""
        wanted = np.asarray(centre_zyx) + np.asarray(self.pad_zyx) - size // 2
        start = np.clip(wanted, 0, np.asarray(self.canvas_zyx) - size)
        return _triple(start - start % 2 if even else start)


@dataclass(frozen=True)
class Crop:
    """Where a sample lies: level, start and step in level-0 voxels on its canvas."""

    level: Level
    canvas: Canvas
    start_zyx: Triple
    step_zyx: tuple[float, float, float]


def region_canvas(volume_shape: Triple, extent: RegionExtent, size: int | Triple, even: bool = False) -> Canvas:
    """The canvas of a region for crops of a size (z, y, x or one edge); `even` widens it to whole level-1 voxels."""
    low = np.array([extent.z_start, 0, 0])
    high = np.array([extent.z_stop, *volume_shape[1:]])
    if even:
        low, high = low - low % 2, high + high % 2
    shape = high - low
    canvas = np.maximum(shape, size)
    pad = (canvas - shape) // 2
    return Canvas(_triple(low), _triple(shape), _triple(pad - pad % 2 if even else pad), _triple(canvas))


def place_crop(stored: StoredCase, extent: RegionExtent, level: Level, patch: int, centre_zyx: ArrayLike) -> Crop:
    """The crop of a level whose centre is nearest to a voxel of the region (the image level has only one)."""
    shape = stored.geometry(0).shape
    if level == "image":
        canvas = region_canvas(shape, extent, 1)
        depth, height, width = (n / patch for n in canvas.canvas_zyx)
        return Crop(level, canvas, (0, 0, 0), (depth, height, width))
    step = 2 if level == "wide" else 1
    canvas = region_canvas(shape, extent, step * patch, even=step == 2)
    return Crop(level, canvas, canvas.start_for(centre_zyx, step * patch, even=step == 2), (step, step, step))


def read_crop(
    stored: StoredCase, extent: RegionExtent, crop: Crop, name: str, patch: int, from_pyramid: bool = True
) -> NDArray:
    """The array (patch³) of `image` (HU), `anatomy` or `lesion` that a crop sees; patches also of a companion (HU).

    Without `from_pyramid` level 0 is read and resized here; the two agree within rounding.
    """
    if crop.level == "image":
        return _read_region(stored, extent, name, patch, from_pyramid)
    if crop.level == "wide" and (not from_pyramid or stored.num_levels < 2):
        box, before = _read_inside(stored, crop.canvas, crop.start_zyx, name, _cube(2 * patch))
        half = downsample2_labels(box) if name in LABELS else downsample2(box)
        return _padded(half, before // 2, name, _cube(patch))
    return read_box(stored, crop.canvas, crop.start_zyx, name, _cube(patch), 1 if crop.level == "wide" else 0)


def read_box(
    stored: StoredCase, canvas: Canvas, start_zyx: Triple, name: str, shape_zyx: Triple, level: int = 0
) -> NDArray:
    """A box of a pyramid level from `start_zyx` (level-0 voxels) of a canvas; air or label 0 outside the region."""
    return _padded(*_read_inside(stored, canvas, start_zyx, name, shape_zyx, level), name, shape_zyx)


def _read_inside(
    stored: StoredCase, canvas: Canvas, start_zyx: Triple, name: str, shape_zyx: Triple, level: int = 0
) -> tuple[NDArray, NDArray[np.intp]]:
    """The part of a box of a pyramid level that lies in the region and the volume, and where in the box it begins."""
    factor, origin = 2**level, np.asarray(canvas.origin_zyx)
    start = (origin + start_zyx - canvas.pad_zyx) // factor
    end = np.minimum((origin + canvas.shape_zyx) // factor, stored.geometry(level).shape)
    low = np.maximum(start, origin // factor)
    high = np.maximum(low, np.minimum(start + shape_zyx, end))
    return stored.read(name, level, _triple(low), _triple(high - low)), low - start


def _padded(box: NDArray, before: NDArray[np.intp], name: str, shape_zyx: Triple) -> NDArray:
    if box.shape == shape_zyx:
        return box
    around = [(int(b), int(size - b - n)) for b, size, n in zip(before, shape_zyx, box.shape, strict=True)]
    return np.pad(box, around, constant_values=0 if name in LABELS else AIR_HU)


def _read_region(stored: StoredCase, extent: RegionExtent, name: str, patch: int, from_pyramid: bool) -> NDArray:
    """The whole region as a cube: the stored thumbnail, or else resized from the coarsest level that is finer."""
    if from_pyramid:
        thumbnail = stored.thumbnail(extent.name, name)
        if thumbnail.shape == (patch, patch, patch):
            return thumbnail
    _, height, width = stored.geometry(0).shape
    step = min(extent.z_stop - extent.z_start, height, width) / patch
    level = max(k for k in range(stored.num_levels if from_pyramid else 1) if k == 0 or 2**k <= step)
    low, high = extent.z_start // 2**level, -(-extent.z_stop // 2**level)
    _, height, width = stored.geometry(level).shape
    box = stored.read(name, level, (low, 0, 0), (high - low, height, width))
    return resize_cube(box, patch, labels=name in LABELS)


def _cube(edge: int) -> Triple:
    return edge, edge, edge


def _triple(values: ArrayLike) -> Triple:
    z, y, x = (int(v) for v in np.asarray(values))
    return z, y, x
