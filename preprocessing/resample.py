"""Resampling: any volume onto an axis-aligned LPS grid of equal spacing (SPEC §2.3).

The image is interpolated linearly, without a filter before it; labels take the nearest voxel. The output's voxel
0, 0, 0 lies on the centre of the source's corner voxel with the smallest z, y and x, so an equal spacing gives back the
same voxels. Every output voxel's centre lies inside the source; in the outer half of its border voxels their value is
kept. Oblique and sheared grids (gantry tilt) get the bounding box, filled with -1024 HU outside.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.case import CaseError
from preprocessing.decoding.raster import MAX_VOXELS
from preprocessing.geometry import IDENTITY, Geometry, Triple
from preprocessing.orient import turn_towards
from preprocessing.volume import Volume

OUTSIDE_HU = -1024
STRAIGHT = 0.05  # voxels: what a rounded direction may move a corner
TIE = 1e-6  # voxels


def resample(volume: Volume, spacing_mm: float | Triple) -> Volume:
    """The volume with all its arrays on `output_grid(volume.geometry, spacing_mm)`.

    Raises:
        CaseError: the output would be larger than any patient.
    """
    grid = output_grid(volume.geometry, spacing_mm)

    def labels(array: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        return None if array is None else resample_onto(array, volume.geometry, grid, nearest=True)

    return replace(
        volume,
        image=resample_onto(volume.image, volume.geometry, grid),
        geometry=grid,
        anatomy=labels(volume.anatomy),
        lesion=labels(volume.lesion),
        companions={k: resample_onto(v, volume.geometry, grid) for k, v in volume.companions.items()},
    )


def output_grid(geometry: Geometry, spacing_mm: float | Triple) -> Geometry:
    """The axis-aligned grid of a spacing in mm (one number, or z, y, x) that covers a source.

    Raises:
        CaseError: it would have more voxels than a volume may have.
    """
    target = np.broadcast_to(np.asarray(spacing_mm, float), 3)
    turned = turn_towards(geometry).geometry(geometry)
    if is_straight(turned):
        origin = np.asarray(turned.origin_mm)
        reach = (np.asarray(turned.shape) - 0.5) * np.asarray(turned.spacing_mm)
    else:
        corners = geometry.corners()
        origin = corners.min(axis=0)
        reach = np.ptp(corners, axis=0) + 0.5 * target
    shape = np.floor(reach / target + TIE).astype(int) + 1
    if int(np.prod(shape)) > MAX_VOXELS:
        raise CaseError(f"{' x '.join(map(str, shape))} voxels of {spacing_mm} mm are too many; correct the spacing.")
    depth, height, width = shape.tolist()
    z, y, x = target.tolist()
    return Geometry((depth, height, width), (z, y, x), tuple(origin.tolist()), IDENTITY)


def is_straight(geometry: Geometry) -> bool:
    """True where the axes run along +z, +y, +x so closely that no corner moves by more than a 20th of a voxel."""
    bend = np.abs(np.asarray(geometry.direction) - IDENTITY)
    moved = bend @ (np.asarray(geometry.spacing_mm) * np.asarray(geometry.shape))
    return bool(moved.max() <= STRAIGHT * min(geometry.spacing_mm))


def resample_onto(array: NDArray, source: Geometry, grid: Geometry, *, nearest: bool = False) -> NDArray:
    """An array of one geometry on another, axis-aligned grid: linear for HU (int16), nearest for labels."""
    turn = turn_towards(source)
    array, source = turn.array(array), turn.geometry(source)
    if not is_straight(source):
        return _through_matrix(array, source, grid, nearest)
    start = (np.asarray(grid.origin_mm) - np.asarray(source.origin_mm)) / np.asarray(source.spacing_mm)
    step = np.asarray(grid.spacing_mm) / np.asarray(source.spacing_mm)
    positions = [start[a] + step[a] * np.arange(grid.shape[a]) for a in range(3)]
    out = _nearest(array, positions) if nearest else _linear(array, positions)
    return _blank_outside(out, positions, array.shape, 0 if nearest else OUTSIDE_HU)


def _nearest(array: NDArray, positions: list[NDArray]) -> NDArray:
    """The voxel whose centre is nearest; of two at equal distance the later one."""
    along_z, along_y, along_x = (
        np.clip(np.floor(p + 0.5 + TIE), 0, n - 1).astype(np.intp) for p, n in zip(positions, array.shape, strict=True)
    )
    out = np.empty((len(along_z), len(along_y), len(along_x)), array.dtype)
    for k, z in enumerate(along_z):
        if k and z == along_z[k - 1]:
            out[k] = out[k - 1]
        else:
            array[z].take(along_y, 0, mode="clip").take(along_x, 1, out=out[k], mode="clip")
    return out


def _linear(array: NDArray, positions: list[NDArray]) -> NDArray[np.int16]:
    """Linear interpolation one axis after the other, slice by slice; a source slice is interpolated once."""
    along_z, along_y, along_x = (_neighbours(p, n) for p, n in zip(positions, array.shape, strict=True))
    out = np.empty(tuple(len(p) for p in positions), np.int16)
    between = np.empty(out.shape[1:], np.float32)
    planes: dict[int, NDArray] = {}
    for k, (low, high, weight) in enumerate(zip(*along_z, strict=True)):
        planes = {z: planes[z] if z in planes else _plane(array[z], along_y, along_x) for z in {int(low), int(high)}}
        plane = planes[int(low)]
        if weight:
            plane = np.subtract(planes[int(high)], plane, out=between)
            plane *= weight
            plane += planes[int(low)]
        np.rint(plane, out=out[k], casting="unsafe")
    return out


def _neighbours(positions: NDArray, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Index below, index above and the weight of the upper one for positions along an axis, held at its ends."""
    held = np.clip(positions, 0, length - 1)
    near = np.rint(held)
    held = np.where(np.abs(held - near) < TIE * 10, near, held)
    lower = np.floor(held).astype(np.intp)
    return lower, np.minimum(lower + 1, length - 1), (held - lower).astype(np.float32)


def _plane(plane: NDArray, along_y: tuple, along_x: tuple) -> NDArray[np.float32]:
    """One source slice (y, x) at the output's y and x."""
    out = plane.astype(np.float32)
    for axis, (lower, upper, weight) in enumerate((along_y, along_x)):
        below, rise = (out.take(index, axis, mode="clip") for index in (lower, upper))
        rise -= below
        rise *= weight if axis else weight[:, None]
        rise += below
        out = rise
    return out


def _blank_outside(out: NDArray, positions: list[NDArray], shape: tuple[int, ...], value: int) -> NDArray:
    """Sets what lies more than half a voxel outside the source's voxel centres."""
    for axis, (p, n) in enumerate(zip(positions, shape, strict=True)):
        outside = (p < -0.5 - TIE) | (p > n - 0.5 + TIE)
        if outside.any():
            out[(slice(None),) * axis + (outside,)] = value
    return out


def _through_matrix(array: NDArray, source: Geometry, grid: Geometry, nearest: bool) -> NDArray:
    """Interpolation at arbitrary positions, for rotated and sheared sources."""
    inverse = np.linalg.inv(source.matrix)
    return ndimage.affine_transform(
        array,
        inverse @ grid.matrix,
        source.index(grid.origin_mm),
        output_shape=grid.shape,
        output=array.dtype,
        order=0 if nearest else 1,
        mode="constant",
        cval=0 if nearest else OUTSIDE_HU,
    )
