"""A DICOM slice in another place than its source's: a frame of an enhanced file alone, or a slice of a new grid."""

import numpy as np
from numpy.typing import ArrayLike
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from preprocessing.decoding.dicom_frames import Frame
from preprocessing.geometry import Geometry

ENHANCED = {"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"}  # Enhanced CT, Legacy Converted Enhanced CT
FRAME_TAGS = (  # of a file of several frames only
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames"),
    *("DimensionOrganizationSequence", "DimensionOrganizationType", "DimensionIndexSequence"),
    *("ConcatenationUID", "InConcatenationNumber", "ConcatenationFrameOffsetNumber"),
)


def alone(dataset: Dataset, frame: Frame, number: int) -> None:
    """Makes the dataset of an enhanced file a classic slice of one of its frames; a classic one stays as it is."""
    if dataset.get("SOPClassUID") not in ENHANCED and not any(tag in dataset for tag in FRAME_TAGS):
        return
    for keyword in FRAME_TAGS:
        dataset.pop(keyword, None)
    if dataset.get("SOPClassUID") in ENHANCED:
        dataset.SOPClassUID = CTImageStorage
    dataset.ImagePositionPatient = decimals(frame.position_xyz)
    dataset.ImageOrientationPatient = decimals(frame.orientation_xyz)
    dataset.PixelSpacing, dataset.SliceThickness = decimals(frame.pixel_spacing_mm), _decimal(frame.thickness_mm)
    dataset.InstanceNumber = number
    _, dataset.AcquisitionNumber, _, dataset.ConvolutionKernel, dataset.KVP, _ = frame.marks
    if frame.slope is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(frame.slope), _decimal(frame.intercept or 0.0)
        dataset.RescaleType = "HU"


def put(dataset: Dataset, geometry: Geometry, number: int) -> None:
    """Says that the slice is number `number` along z of a geometry, and how thick it is."""
    direction = np.asarray(geometry.direction)
    right, down = direction[::-1, 2], direction[::-1, 1]
    dataset.ImagePositionPatient = decimals(geometry.world((number, 0, 0))[::-1])
    dataset.ImageOrientationPatient = decimals([*right, *down])
    dataset.PixelSpacing = decimals(geometry.spacing_mm[1:])
    dataset.SliceThickness = _decimal(thickness(geometry))
    dataset.InstanceNumber = number + 1
    for keyword in ("SliceLocation", "SpacingBetweenSlices"):
        dataset.pop(keyword, None)


def thickness(geometry: Geometry) -> float:
    """The distance in mm from plane to plane, across them."""
    direction = np.asarray(geometry.direction)
    return abs(float(np.cross(direction[::-1, 2], direction[::-1, 1]) @ geometry.matrix[::-1, 0]))


def decimals(values: ArrayLike) -> list[str]:
    """Numbers as DICOM decimal strings."""
    return [_decimal(value) for value in np.ravel(values)]


def _decimal(value: float) -> str:
    """A DICOM decimal string of at most 16 characters."""
    return format_number_as_ds(float(value) + 0.0)
