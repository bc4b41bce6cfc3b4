"""What a DICOM file says without its pixels: enough to sort files into series and to refuse what is no CT.

Names, dates and other private facts are never read; the patient's identifier only tells cases of one patient apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

IMAGE_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "PatientID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
]
DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR
HEADER_ERRORS = (OSError, EOFError, InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, IndexError)
HEADER_ERRORS += (NotImplementedError, OverflowError, BytesLengthException)


@dataclass(frozen=True)
class DicomHeader:
    """One DICOM file: its series, and the geometry of its one image where it has one (numbers as written)."""

    path: str
    modality: str
    instance: str
    series: str
    series_number: str
    patient: str
    frame_of_reference: str
    localizer: bool
    frames: int
    samples: int
    size: tuple[int, int]  # rows, columns
    pixel_spacing_mm: tuple[float, ...]  # between rows, between columns
    thickness_mm: float
    position_xyz: tuple[float, ...]
    orientation_xyz: tuple[float, ...]
    references: tuple[str, ...]  # series and frames of reference that a SEG or RTSTRUCT names


def read_header(path: Path) -> DicomHeader | None:
    """The header of a DICOM file; None where the file is not DICOM, is damaged or is a DICOMDIR."""
    try:
        with path.open("rb") as stream:
            marked = stream.read(132)[128:] == b"DICM"
        if not marked and path.suffix.lower() not in (".dcm", ".ima"):
            return None
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=IMAGE_TAGS, force=not marked)
        if "SOPClassUID" not in dataset or str(dataset.SOPClassUID) == DIRECTORY:
            return None
        return _header(dataset, path)
    except HEADER_ERRORS:
        return None


def _header(dataset: Dataset, path: Path) -> DicomHeader:
    return DicomHeader(
        path=str(path),
        modality=_text(dataset, "Modality").upper(),
        instance=_text(dataset, "SOPInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        series_number=_text(dataset, "SeriesNumber"),
        patient=_text(dataset, "PatientID"),
        frame_of_reference=_text(dataset, "FrameOfReferenceUID"),
        localizer="LOCALIZER" in [str(word).upper() for word in _list(dataset, "ImageType")],
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        size=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        pixel_spacing_mm=_floats(dataset, "PixelSpacing"),
        thickness_mm=float(dataset.get("SliceThickness") or 0),
        position_xyz=_floats(dataset, "ImagePositionPatient"),
        orientation_xyz=_floats(dataset, "ImageOrientationPatient"),
        references=tuple(dict.fromkeys(_references(dataset))),
    )


def _references(dataset: Dataset) -> Iterator[str]:
    """Series that a segmentation or a structure set names; its frames of reference as well."""
    for series in dataset.get("ReferencedSeriesSequence") or ():
        yield _text(series, "SeriesInstanceUID")
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        yield _text(frame, "FrameOfReferenceUID")
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield _text(series, "SeriesInstanceUID")


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _list(dataset: Dataset, keyword: str) -> list:
    value = dataset.get(keyword)
    return [value] if isinstance(value, str) else list(value or ())


def _floats(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    return tuple(float(v) for v in _list(dataset, keyword))
