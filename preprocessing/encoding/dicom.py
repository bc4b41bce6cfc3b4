"""A DICOM series like the one that a result came from: its patient, study and geometry, new identity of its own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from infra.errors import UserError
from preprocessing.case import Case
from preprocessing.volume import Volume

OFF_GRID = 0.05  # slices
ELSE = "write a file (.nii.gz) instead"
SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")
DESCRIPTION_LENGTH = 64


def write_series(case: Case, volume: Volume, hu_zyx: NDArray, folder: Path, derivation: str) -> None:
    """One file a slice in a new folder; voxels that did not change keep the source's stored numbers.

    Raises:
        UserError: the source is no stack of single-frame slices on one grid, or was repaired when it was read.
    """
    folder.mkdir()
    series = generate_uid(prefix=None)
    for path in case.image:
        slice_ = pydicom.dcmread(path)
        at = slice_index(slice_, volume, case)
        stored = _stored(slice_, volume.image[at], case)
        changed = hu_zyx[at] != volume.image[at]
        slice_.PixelData = _encoded(slice_, stored, hu_zyx[at], changed).tobytes()
        mark_derived(slice_, series, derivation)
        slice_.save_as(folder / f"{at + 1:05d}.dcm", enforce_file_format=True)


def slice_index(slice_: Dataset, volume: Volume, case: Case) -> int:
    """Which slice of the volume a file is."""
    if "ImagePositionPatient" not in slice_ or int(slice_.get("NumberOfFrames", 1)) > 1:
        raise UserError(f"{case.id} is an enhanced DICOM file, whose like is not written; {ELSE}")
    index = volume.geometry.index([float(v) for v in slice_.ImagePositionPatient][::-1])
    at = round(float(index[0]))
    if np.abs(index - (at, 0, 0)).max() > OFF_GRID or not 0 <= at < len(volume.image):
        raise UserError(f"{case.id}: its slices lie on no even grid, so a series like it cannot be written; {ELSE}")
    return at


def _stored(slice_: Dataset, hu_yx: NDArray, case: Case) -> NDArray:
    """The stored numbers (y, x), after making sure that they are what was read."""
    if slice_.file_meta.TransferSyntaxUID.is_compressed:
        slice_.decompress(generate_instance_uid=False)
    stored = slice_.pixel_array
    read = stored * float(slice_.get("RescaleSlope", 1)) + float(slice_.get("RescaleIntercept", 0))
    if read.shape != hu_yx.shape or np.mean(np.abs(np.rint(read) - hu_yx) < 1) < 0.5:
        raise UserError(f"{case.id}: its Hounsfield values were repaired when it was read; {ELSE}")
    return stored


def _encoded(slice_: Dataset, stored: NDArray, hu_yx: NDArray, changed: NDArray[np.bool_]) -> NDArray:
    slope, intercept = float(slice_.get("RescaleSlope", 1)), float(slice_.get("RescaleIntercept", 0))
    bits, signed = int(slice_.BitsStored), bool(slice_.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    numbers = stored.copy()
    numbers[changed] = np.rint((hu_yx[changed] - intercept) / slope).clip(low, high)
    return numbers.astype(f"<{'i' if signed else 'u'}{int(slice_.BitsAllocated) // 8}")


def mark_derived(slice_: Dataset, series: str, derivation: str) -> None:
    """A new image of the same patient and place that says what it is and what it was made from."""
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = slice_.SOPClassUID, slice_.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = [_code(*SOURCE_IMAGE)]
    slice_.SourceImageSequence = [source]
    slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    slice_.SeriesInstanceUID = series
    slice_.ImageType = ["DERIVED", "SECONDARY", *_values(slice_.get("ImageType"))[2:]]
    slice_.DerivationDescription = derivation[:1024]
    described = f"MedDiff, not for diagnosis: {slice_.get('SeriesDescription', '')}"
    slice_.SeriesDescription = described[:DESCRIPTION_LENGTH].strip(" :")
    slice_.ContentQualification = "RESEARCH"
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_["PixelData"].VR = "OW"
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        if name in slice_:
            delattr(slice_, name)


def _values(value: object) -> Sequence[str]:
    return [str(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else []


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
