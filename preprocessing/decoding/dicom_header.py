"""What a DICOM file says without its pixels: enough to sort files into series and to refuse what is no CT.

Names, dates and other private facts are never read; the patient's identifier only tells cases of one patient apart,
and a description is only searched for words of reformats.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

import pydicom
import pydicom.config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from preprocessing.decoding.dicom_frames import Frame, frames
from preprocessing.decoding.dicom_kinds import KIND_TAGS

HEADER_TAGS = [
    *KIND_TAGS,
    *("SOPInstanceUID", "Modality", "PatientID", "SeriesInstanceUID", "SeriesNumber"),
    *("FrameOfReferenceUID", "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "PixelSpacing", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "ConvolutionKernel", "KVP"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", "SegmentSequence"),
    *("StructureSetROISequence", "RTROIObservationsSequence"),
]
DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR
HEADER_ERRORS = (OSError, EOFError, InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, IndexError)
HEADER_ERRORS += (NotImplementedError, OverflowError, BytesLengthException, RecursionError, struct.error, zlib.error)
MODALITIES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "XA", "MG", "OT", "RF", "XC", "SEG", "RTSTRUCT", "RTPLAN"}
MODALITIES |= {"RTDOSE", "RTIMAGE", "RTRECORD", "REG", "SR", "KO", "PR", "DOC", "RWV", "FID", "SM", "ECG", "PLAN"}
UNDEFINED = 0xFFFFFFFF  # length of an element that ends with a delimiter
SUFFIXES = (".dcm", ".ima")


pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings repeat values and paths
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """One frame of a DICOM file with the facts of its file (numbers as written); a file that is no image has one."""

    path: str
    modality: str
    instance: str
    series: str
    series_number: str
    patient: str
    frame_of_reference: str
    samples: int
    size: tuple[int, int]  # rows, columns
    frame: Frame
    references: frozenset[str]  # series, instances and frames of reference that a SEG or RTSTRUCT names
    parts: tuple[tuple[int, tuple[str, ...]], ...]  # its segments or regions of interest: number and names

    @property
    def shown_modality(self) -> str:
        """The modality for a sentence; in quotes where it may be anything."""
        return self.modality if self.modality in MODALITIES else repr(self.modality)


class _Bounded(BufferedReader):
    """A file that is asked for no more than it holds: Python takes memory for all that a damaged length promises."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """As any file's."""
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def is_dicom(path: Path) -> bool:
    """True where a file begins like DICOM, or is named so."""
    return _is_marked(path) or path.suffix.lower() in SUFFIXES


def read_headers(path: Path) -> list[DicomHeader]:
    """One header for each frame of a DICOM file; none where the file is not DICOM, is damaged or is a DICOMDIR."""
    try:
        if not is_dicom(path):
            return []
        dataset = parse(path, HEADER_TAGS, pixels=False)
        if "SOPClassUID" not in dataset or str(dataset.SOPClassUID) == DIRECTORY:
            return []
        return headers_of(dataset, path)
    except HEADER_ERRORS:
        return []


def parse(path: Path, tags: list[str], *, pixels: bool) -> Dataset:
    """The named elements of a DICOM file, which need not have a preamble.

    Raises:
        HEADER_ERRORS: it cannot be parsed, or an element is cut short (pydicom would hand out what is left of it).
    """
    force = not _is_marked(path)
    with _Bounded(path) as stream:
        dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, specific_tags=list(tags), force=force)
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.length != UNDEFINED and len(raw.value or b"") < raw.length:
            raise EOFError(f"element {raw.tag} is cut short")
    return dataset


def headers_of(dataset: Dataset, path: Path) -> list[DicomHeader]:
    """One header for each frame of a parsed file.

    Raises:
        HEADER_ERRORS: an element has no usable value.
    """
    modality = _text(dataset, "Modality").upper()
    facts: dict[str, Any] = {
        "path": str(path),
        "modality": modality,
        "instance": _text(dataset, "SOPInstanceUID"),
        "series": _text(dataset, "SeriesInstanceUID"),
        "series_number": _text(dataset, "SeriesNumber"),
        "patient": _text(dataset, "PatientID"),
        "frame_of_reference": _text(dataset, "FrameOfReferenceUID"),
        "samples": int(dataset.get("SamplesPerPixel") or 1),
        "size": (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        "references": frozenset(_references(dataset)) - {""},
        "parts": tuple(_parts(dataset)),
    }
    found = frames(dataset)
    return [DicomHeader(**facts, frame=frame) for frame in (found if modality == "CT" else found[:1])]


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _references(dataset: Dataset) -> Iterator[str]:
    """Series, with their instances, that a segmentation or a structure set names; its frames of reference as well."""
    yield from _series(dataset.get("ReferencedSeriesSequence"), "ReferencedInstanceSequence")
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        yield _text(frame, "FrameOfReferenceUID")
        for study in frame.get("RTReferencedStudySequence") or ():
            yield from _series(study.get("RTReferencedSeriesSequence"), "ContourImageSequence")
    if _text(dataset, "Modality").upper() == "SEG":
        yield _text(dataset, "FrameOfReferenceUID")


def _series(sequence: list[Dataset] | None, instances: str) -> Iterator[str]:
    for series in sequence or ():
        yield _text(series, "SeriesInstanceUID")
        for instance in series.get(instances) or ():
            yield _text(instance, "ReferencedSOPInstanceUID")


def _parts(dataset: Dataset) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number and names of each segment (label, type, then its organ) or region of interest (name, then type)."""
    for segment in dataset.get("SegmentSequence") or ():
        kinds = [_meaning(segment, "SegmentedPropertyTypeCodeSequence"), _meaning(segment, "AnatomicRegionSequence")]
        yield int(segment.SegmentNumber), (_text(segment, "SegmentLabel"), *kinds)
    kinds = {}
    for observed in dataset.get("RTROIObservationsSequence") or ():
        kinds[int(observed.ReferencedROINumber)] = _text(observed, "RTROIInterpretedType")
    for region in dataset.get("StructureSetROISequence") or ():
        number = int(region.ROINumber)
        yield number, (_text(region, "ROIName"), kinds.get(number, ""), "")


def _meaning(segment: Dataset, sequence: str) -> str:
    """The words of a code, after those of the side that modifies it."""
    for code in segment.get(sequence) or ():
        sides = [
            _text(side, "CodeMeaning")
            for keyword in ("SegmentedPropertyTypeModifierCodeSequence", "AnatomicRegionModifierSequence")
            for side in code.get(keyword) or ()
        ]
        return " ".join([*sides, _text(code, "CodeMeaning")])
    return ""


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()
