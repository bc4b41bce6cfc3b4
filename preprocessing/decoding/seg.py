"""The segments of a DICOM SEG (binary, fractional or label map) as masks on an image's grid.

Frames come in any order, sparsely, and along any axis of the image; each is painted where its own header places it.
A frame whose pixels are not the image's voxels is refused: a mask is never interpolated. A fractional segment holds
where it reaches half of its maximum.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError
from preprocessing.decoding.dicom_frames import Frame, frames
from preprocessing.decoding.dicom_header import HEADER_TAGS
from preprocessing.decoding.dicom_pixels import PIXEL_TAGS, stored_frames
from preprocessing.geometry import Geometry

SEGMENT_TAGS = [*HEADER_TAGS, *PIXEL_TAGS, "SegmentationType", "MaximumFractionalValue"]
OFF_GRID = 0.25  # voxels


def read_segments(
    dataset: Dataset, numbers: Sequence[int], geometry: Geometry, name: str
) -> Iterator[tuple[int, NDArray[np.uint8], str]]:
    """Number, mask (z, y, x; 0/1) and, in words, what lies outside the image, of each segment asked for.

    Raises:
        CaseError: a frame does not lie on the grid, or cannot be decoded.
    """
    if "PixelData" not in dataset:
        raise CaseError(f"{name} holds no pixels; it is cut short, copy it again.")
    kind = str(dataset.get("SegmentationType", "BINARY")).upper()
    half = int(dataset.get("MaximumFractionalValue") or 255) / 2 if kind == "FRACTIONAL" else 1
    found = frames(dataset)
    for number in numbers:
        mask, outside = np.zeros(geometry.shape, np.uint8), 0
        wanted = [frame for frame in found if kind == "LABELMAP" or frame.segment == number]
        pixels = stored_frames(dataset, [frame.number for frame in wanted], name)
        for frame, plane in zip(wanted, pixels, strict=True):
            held = plane == number if kind == "LABELMAP" else plane >= half
            outside += _paint(mask, held, frame, geometry, name)
        yield number, mask, f"{outside} voxels" if outside else ""


def _paint(mask: NDArray[np.uint8], held: NDArray[np.bool_], frame: Frame, geometry: Geometry, name: str) -> int:
    """Marks the voxels of one frame (rows, columns); returns how many lie outside."""
    corner, down, right = _steps(frame, geometry, held.shape, name)
    rows, columns = np.nonzero(held)
    index = corner + rows[:, None] * down + columns[:, None] * right
    inside = ((index >= 0) & (index < geometry.shape)).all(axis=1)
    mask[tuple(index[inside].T)] = 1
    return int(np.count_nonzero(~inside))


def _steps(frame: Frame, geometry: Geometry, shape: Sequence[int], name: str) -> list[NDArray[np.intp]]:
    """Voxel index of the frame's first pixel, and the steps of index to the next row and the next column."""
    row_mm, column_mm = frame.pixel_spacing_mm
    along = np.array(frame.orientation_xyz).reshape(2, 3)
    corner = np.array(frame.position_xyz)
    ends = np.array(
        [corner, corner + along[1] * row_mm * (shape[0] - 1), corner + along[0] * column_mm * (shape[1] - 1)]
    )
    index = geometry.index(ends[:, ::-1])
    whole = np.rint(index)
    counts = np.maximum(np.array(shape) - 1, 1)
    steps = (whole[1:] - whole[0]) / counts[:, None]
    straight = (np.abs(steps).sum(axis=1) == 1).all() or min(shape) == 1
    if np.abs(index - whole).max() > OFF_GRID or not straight:
        place = ", ".join(f"{v:.2f}" for v in index[0])
        raise CaseError(
            f"{name}: frame {frame.number + 1} does not lie on the voxels of the image (its first pixel at z, y, x = "
            f"{place}, {row_mm:g} x {column_mm:g} mm apart); draw the segmentation on this series."
        )
    return [part.astype(np.intp) for part in (whole[0], *steps)]
