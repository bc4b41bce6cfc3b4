"""What marks a result as made by MedDiff and not for diagnosis: texts, identifiers, and the header of a DICOM slice.

Identifiers follow from the source's, the derivation and the content: the same result written twice is the same series.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from preprocessing.decoding.dicom_header import HEADER_ERRORS, DicomHeader, is_dicom, parse
from preprocessing.decoding.dicom_kinds import DERIVED

MAKER = "MedDiff"
WARNING = "not for diagnosis"
NUMBER_OFFSET = 1000  # of a result's SeriesNumber from its source's
STALE = (  # true of the source's pixels, file or creation only
    *("IconImageSequence", "SmallestImagePixelValue", "LargestImagePixelValue", "PixelDataProviderURL"),
    *("DigitalSignaturesSequence", "MACParametersSequence", "DerivationCodeSequence", "InstanceCreatorUID"),
    *("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"),
)


@dataclass(frozen=True)
class Derivation:
    """How a result was made, in words, and what its identifiers are derived from."""

    text: str
    seed: str

    def uid(self, *parts: object) -> str:
        """The identifier of a part of the result."""
        return generate_uid(entropy_srcs=[MAKER, self.seed, self.text, *map(str, parts)])

    @property
    def description(self) -> str:
        """The whole sentence; ASCII, as no character set may be assumed."""
        return plain(f"{MAKER} {version('meddiff')}, {WARNING}: {self.text}")


def plain(text: str) -> str:
    """Printable ASCII without the backslash, which would part a DICOM value in two."""
    return "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in " ".join(text.split()))


def is_ours(path: Path) -> bool:
    """Whether a file is a DICOM object that `mark` has marked."""
    try:
        if not (path.is_file() and is_dicom(path)):
            return False
        text = parse(path, ["DerivationDescription"], pixels=False).get("DerivationDescription")
    except HEADER_ERRORS:
        return False
    return str(text or "").startswith(MAKER)


def mark(dataset: Dataset, header: DicomHeader, derivation: Derivation, number: int) -> None:
    """Makes the dataset of a source slice that of slice `number` of a derived series; its pixels are set later."""
    for keyword in STALE:
        dataset.pop(keyword, None)
    reference = _source(dataset, header)
    kind = dataset.get("ImageType") or ()
    dataset.ImageType = [*DERIVED.split("\\"), "AXIAL", *([] if isinstance(kind, str) else kind[3:])]
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = derivation.uid("series"), derivation.uid("slice", number)
    dataset.SeriesNumber = series_number(header)
    dataset.SeriesDescription = f"{MAKER}, {WARNING}: {dataset.get('SeriesDescription') or ''}"[:64].rstrip(": ")
    dataset.DerivationDescription = derivation.description[:1024]
    dataset.ContentQualification = "RESEARCH"
    dataset.SourceImageSequence = [reference] if header.instance else []
    dataset.ContributingEquipmentSequence = [*(dataset.get("ContributingEquipmentSequence") or ()), _equipment()]
    dataset.preamble = b"\0" * 128
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def _source(dataset: Dataset, header: DicomHeader) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.get("SOPClassUID"), header.instance
    if "PerFrameFunctionalGroupsSequence" in dataset:
        item.ReferencedFrameNumber = header.frame.number + 1
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


def _equipment() -> Dataset:
    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName = MAKER, MAKER
    item.SoftwareVersions = version("meddiff")
    item.PurposeOfReferenceCodeSequence = [code_item(codes.DCM.ModifyingEquipment)]
    return item


def code_item(code: Code) -> Dataset:
    """A code as an item of a sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def series_number(header: DicomHeader) -> int:
    """The number of a result's series, by that of its source."""
    return NUMBER_OFFSET + (int(header.series_number) if header.series_number.isdecimal() else 0)
