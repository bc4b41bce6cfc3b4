"""The regions of interest of a DICOM RTSTRUCT as masks on an image's grid.

A voxel belongs to a contour where its centre lies inside. Contours of one slice are combined by exclusive or, so a
second contour inside the first is a hole; a keyhole contour is its own hole. Nothing is drawn between slices.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from skimage.draw import polygon

from preprocessing.case import CaseError
from preprocessing.geometry import Geometry

CONTOUR_TAGS = ["ROIContourSequence"]
OFF_SLICE = 0.25  # of the slice distance
AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


def read_regions(
    dataset: Dataset, numbers: Sequence[int], geometry: Geometry, name: str
) -> Iterator[tuple[int, NDArray[np.uint8], str]]:
    """Number, mask (z, y, x; 0/1) and, in words, what lies outside the image, of each region asked for.

    Raises:
        CaseError: a contour lies between or across the slices of the image.
    """
    if "ROIContourSequence" not in dataset:
        raise CaseError(f"{name} holds no contours; it is cut short, copy it again.")
    for number in numbers:
        mask, outside = np.zeros(geometry.shape, np.uint8), 0
        for points in _contours(dataset, number):
            outside += not _draw(mask, geometry.index(points[:, ::-1]), name, number)
        yield number, mask, f"{outside} contours" if outside else ""


def _contours(dataset: Dataset, number: int) -> Iterator[NDArray[np.float64]]:
    """The closed contours of a region, points (n, 3) in x, y, z mm."""
    for region in dataset.ROIContourSequence or ():
        if int(region.ReferencedROINumber) != number:
            continue
        for contour in region.get("ContourSequence") or ():
            points = np.array(contour.get("ContourData") or (), float).reshape(-1, 3)
            if str(contour.get("ContourGeometricType", "")).upper() in AREAS and len(points) >= 3:
                yield points


def _draw(mask: NDArray[np.uint8], points: NDArray[np.float64], name: str, number: int) -> bool:
    """Flips the voxels inside one contour (n, 3; voxel indices z, y, x); False where its slice is not in the image."""
    slice_ = round(float(np.median(points[:, 0])))
    off = float(np.abs(points[:, 0] - slice_).max())
    if off > OFF_SLICE:
        raise CaseError(
            f"{name}: a contour of region {number} lies {off:.2f} slices off slice {slice_} of the image; draw it "
            "on the slices of this series."
        )
    if not 0 <= slice_ < len(mask):
        return False
    plane = mask[slice_]
    plane[polygon(points[:, 1], points[:, 2], plane.shape)] ^= 1
    return True
