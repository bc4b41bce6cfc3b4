"""A DICOM SEG drawn on another image (a PET beside the CT): read on its frames' grid, then brought to the image's.

Both lie in one frame of reference, so the voxel of the SEG that is nearest to a voxel of the image says what it is.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError
from preprocessing.decoding.dicom_frames import frames
from preprocessing.decoding.raster import checked_geometry
from preprocessing.decoding.seg import read_segments
from preprocessing.geometry import Geometry

SAME_PLACE_MM = 0.01


def read_own_grid(
    dataset: Dataset, numbers: Sequence[int], geometry: Geometry, name: str
) -> Iterator[tuple[int, NDArray[np.uint8], str]]:
    """As `seg.read_segments`, for a SEG whose frames lie on a grid of their own.

    Raises:
        CaseError: its frames lie on no grid, or cannot be decoded.
    """
    own = frame_grid(dataset, name)
    for number, mask, outside in read_segments(dataset, numbers, own, name):
        yield number, nearest_onto(mask, own, geometry), outside


def frame_grid(dataset: Dataset, name: str) -> Geometry:
    """The smallest grid that holds every frame: their pixels, and along the normal the smallest step between two.

    Raises:
        CaseError: the frames are not parallel, or not a whole number of steps apart.
    """
    found = frames(dataset)
    first = found[0]
    along = np.array(first.orientation_xyz).reshape(2, 3)
    normal = np.cross(along[0], along[1])
    if any(not np.allclose(frame.orientation_xyz, first.orientation_xyz, atol=1e-3) for frame in found):
        raise CaseError(f"{name}: its frames are not parallel; draw the segmentation on one series.")
    corners = {round(float(normal @ frame.position_xyz), 2): frame.position_xyz for frame in found}
    places = np.array(sorted(corners))
    gaps = np.diff(places)
    step = float(gaps[gaps > SAME_PLACE_MM].min()) if len(gaps) else first.thickness_mm or 1.0
    counts = gaps / step
    if len(gaps) and np.abs(counts - np.rint(counts)).max() > 0.1:
        raise CaseError(f"{name}: its frames are {gaps.min():g} to {gaps.max():g} mm apart, no whole number of steps.")
    count = round((places[-1] - places[0]) / step) + 1
    exact = (places[-1] - places[0]) / (count - 1) if count > 1 else step
    row_mm, column_mm = first.pixel_spacing_mm
    matrix = np.stack([normal * exact, along[1] * row_mm, along[0] * column_mm], axis=1)[::-1]
    shape = (count, int(dataset.Rows), int(dataset.Columns))
    geometry, _ = checked_geometry(shape, matrix, np.array(corners[places[0]])[::-1], name)
    return geometry


def nearest_onto(mask: NDArray[np.uint8], own: Geometry, grid: Geometry) -> NDArray[np.uint8]:
    """A mask (z, y, x) of one geometry on any other: the nearest voxel's value, 0 outside."""
    out = np.zeros(grid.shape, np.uint8)
    origin = own.index(grid.world((0, 0, 0)))
    steps = [own.index(grid.world(axis)) - origin for axis in np.eye(3)]
    rows, columns = (np.arange(n)[:, None] * step for n, step in zip(grid.shape[1:], steps[1:], strict=True))
    plane = rows[:, None] + columns[None]
    for k, held in enumerate(out):
        index = np.rint(origin + k * steps[0] + plane).astype(np.intp)
        inside = ((index >= 0) & (index < own.shape)).all(axis=-1)
        held[inside] = mask[tuple(index[inside].T)]
    return out
