"""The slices of a DICOM case in the order of its decoded volume: their headers, their stored numbers."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import Case, CaseError
from preprocessing.decoding.dicom_header import HEADER_ERRORS, DicomHeader, parse, read_headers
from preprocessing.decoding.dicom_pixels import stored_frames
from preprocessing.decoding.dicom_stacks import along_normal, positions, slices_of, stacks
from preprocessing.decoding.slice_grid import SAME_PLACE_MM, even_grid

WORDS = {"OW": "u2", "OL": "u4", "OF": "u4", "OD": "u8", "OV": "u8"}  # values that are bytes in the file's own order
PIXEL_TAGS = ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def source_slices(case: Case) -> tuple[DicomHeader, ...]:
    """One header a slice, in the order in which `read_image` stacks them; `case` must have been read by it before.

    Raises:
        CaseError: a file does not even say of which kind it is.
    """
    headers = [header for path in case.image for header in read_headers(Path(path))]
    if {header.path for header in headers} != set(case.image):
        raise CaseError(f"{case.id}: the header of a file of it cannot be written again; write the result as .nii.gz.")
    ordered = along_normal(stacks(slices_of(headers)[0])[case.stack])
    kept = ordered[:1]
    for header in ordered[1:]:
        apart = np.subtract(header.frame.position_xyz, kept[-1].frame.position_xyz)
        kept += [header] if np.abs(apart).max() > SAME_PLACE_MM else []
    return tuple(kept)


def is_one_to_one(slices: Sequence[DicomHeader]) -> bool:
    """Whether each slice is a plane of the decoded volume: False where that was interpolated between them."""
    return len(slices) == 1 or even_grid(positions(slices), "").places is None


def opened(slices: Sequence[DicomHeader]) -> Iterator[tuple[DicomHeader, Dataset, NDArray]]:
    """Each slice with a dataset of its own, without pixels, and its stored numbers (y, x).

    A file is read once as long as its slices follow each other.

    Raises:
        CaseError: a file cannot be read any more, or holds its pixels in another form than whole numbers.
    """
    path, whole, bare = "", Dataset(), Dataset()
    for header in slices:
        if header.path != path:
            path, whole = header.path, _parsed(Path(header.path))
            bare = _without_pixels(whole)
        pixels = next(stored_frames(whole, [header.frame.number], Path(path).name))
        yield header, deepcopy(bare), pixels


def _parsed(path: Path) -> Dataset:
    try:
        dataset = parse(path, [], pixels=True)
    except HEADER_ERRORS as error:
        raise CaseError(f"{path.name} is no readable DICOM file any more; list the source again.") from error
    if "PixelData" not in dataset:
        raise CaseError(f"{path.name} holds no whole numbers; write the result as .nii.gz.")
    return dataset


def _without_pixels(whole: Dataset) -> Dataset:
    """A copy of all but the pixels, which are not copied on the way."""
    pixels = [whole[tag] for tag in PIXEL_TAGS if tag in whole]
    for element in pixels:
        del whole[element.tag]
    bare = deepcopy(whole)
    _make_little(bare)
    for element in pixels:
        whole.add(element)
    return bare


def _make_little(dataset: Dataset) -> None:
    """Numbers of a big-endian file as they are written today; elsewhere nothing."""
    if dataset.original_encoding[1] is not False:
        return
    for element in dataset.iterall():  # which reads every one of them
        if element.VR in WORDS and isinstance(element.value, bytes):
            kind = WORDS[element.VR]
            element.value = np.frombuffer(element.value, f">{kind}").astype(f"<{kind}").tobytes()
