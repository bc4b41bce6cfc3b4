"""The frames of a DICOM image: where each lies and how its numbers become HU, in classic and enhanced files alike.

An enhanced file keeps these facts in functional groups, shared by all frames or a frame's own; a classic file keeps
them at its root and has one frame. A frame's own group is believed before the shared one, and that before the root.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from preprocessing.decoding.dicom_kinds import is_derived, why_left_out


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its place (x, y, z; mm, LPS), its rescale (None where unstated) and what tells it from others."""

    number: int
    position_xyz: tuple[float, ...]
    orientation_xyz: tuple[float, ...]
    pixel_spacing_mm: tuple[float, ...]  # between rows, between columns
    thickness_mm: float
    slope: float | None
    intercept: float | None
    left_out: str  # why it is no slice of a CT volume; "" where it is one
    derived: bool  # made from other images, as its header says, and a slice all the same
    stack: str
    marks: tuple[str, ...]  # temporal position, acquisition, cardiac phase, kernel, kVp, thickness
    segment: int  # of a segmentation; 0 elsewhere


def frames(dataset: Dataset) -> list[Frame]:
    """Every frame of an image, in the file's order.

    Raises:
        ValueError, TypeError, IndexError: a number is none, or the functional groups are fewer than the frames.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    if count < 1:
        raise ValueError(f"NumberOfFrames is {count}")
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if own and len(own) < count:
        raise IndexError(f"{count} frames but {len(own)} functional groups")
    return [_frame(number, ([own[number]] if own else []) + [shared, dataset]) for number in range(count)]


def _frame(number: int, scopes: Sequence[Dataset]) -> Frame:
    def fact(sequence: str, keyword: str, other: str = "") -> object:
        return _fact(scopes, sequence, keyword, other or keyword)

    kind = [*_words(fact("CTImageFrameTypeSequence", "FrameType")), *_words(scopes[-1].get("ImageType"))]
    unit = _text(fact("PixelValueTransformationSequence", "RescaleType"))
    thickness = _number(fact("PixelMeasuresSequence", "SliceThickness")) or 0.0
    slope = _number(fact("PixelValueTransformationSequence", "RescaleSlope"))
    orientation = _numbers(fact("PlaneOrientationSequence", "ImageOrientationPatient"))
    left_out = why_left_out(kind, scopes[-1], unit.upper(), slope, orientation)
    return Frame(
        number=number,
        position_xyz=_numbers(fact("PlanePositionSequence", "ImagePositionPatient")),
        orientation_xyz=orientation,
        pixel_spacing_mm=_numbers(fact("PixelMeasuresSequence", "PixelSpacing")),
        thickness_mm=thickness,
        slope=slope,
        intercept=_number(fact("PixelValueTransformationSequence", "RescaleIntercept")),
        left_out=left_out,
        derived=not left_out and is_derived(kind),
        stack=_text(fact("FrameContentSequence", "StackID")),
        marks=(
            _text(fact("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier")),
            _text(fact("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber")),
            _text(fact("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase")),
            _text(fact("CTReconstructionSequence", "ConvolutionKernel")),
            _text(fact("CTXRayDetailsSequence", "KVP")),
            f"{thickness:g}",
        ),
        segment=int(_number(fact("SegmentIdentificationSequence", "ReferencedSegmentNumber")) or 0),
    )


def _fact(scopes: Sequence[Dataset], sequence: str, keyword: str, other: str) -> object:
    """The value of the narrowest scope that states it; at the root it may have another name."""
    for scope in scopes[:-1]:
        value = _first(scope, sequence).get(keyword)
        if value is not None:
            return value
    return scopes[-1].get(other)


def _first(dataset: Dataset, sequence: str) -> Dataset:
    items = dataset.get(sequence)
    return items[0] if items else Dataset()


def _words(value: object) -> list[str]:
    """The values in capitals, and the words of values that hold several ("CT_SOM5 MPR")."""
    values = [str(one).strip().upper() for one in _listed(value)]
    return [*values, *(word for one in values if " " in one for word in one.split())]


def _text(value: object) -> str:
    return str(value if value is not None else "").strip()


def _number(value: object) -> float | None:
    return None if value is None or value == "" else _finite(str(value))


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(_finite(v) for v in _listed(value))


def _finite(value: float | str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _listed(value: object) -> list:
    if value is None or isinstance(value, str):
        return [value] if value else []
    try:
        return list(value)  # ty: ignore[invalid-argument-type]
    except TypeError:
        return [value]
