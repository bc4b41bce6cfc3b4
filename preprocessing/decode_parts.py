"""The named parts of a DICOM SEG or RTSTRUCT as masks on the image's grid; parts may overlap, so each has its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError, LabelFile
from preprocessing.decode_rtstruct import CONTOUR_TAGS, read_region
from preprocessing.decode_seg import SEGMENT_TAGS, read_segment
from preprocessing.dicom_header import HEADER_ERRORS, parse
from preprocessing.geometry import Geometry

Reader = Callable[[Dataset, int, Geometry, NDArray[np.uint8], str], str]
READERS: dict[str, Reader] = {"SEG": read_segment, "RTSTRUCT": read_region}


def read_parts(label: LabelFile, geometry: Geometry, findings: list[str]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and mask (z, y, x; 0/1) of each part that `label.classes` names; what was odd is added to `findings`.

    Raises:
        CaseError: the file cannot be read, or a part of it does not lie on the slices of the image.
    """
    path = Path(label.path)
    dataset, read = _open(path)
    for number in sorted({value for value, _ in label.classes}):
        mask = np.zeros(geometry.shape, np.uint8)
        try:
            outside = read(dataset, number, geometry, mask, path.name)
        except HEADER_ERRORS as error:
            raise CaseError(f"{path.name}: part {number} is damaged ({error}); export it again.") from error
        if outside:
            findings.append(f"{path.name}: {outside} of part {number} lie outside the image and were left out")
        if not mask.any():
            findings.append(f"{path.name}: part {number} marks no voxel of the image")
        yield number, mask


def _open(path: Path) -> tuple[Dataset, Reader]:
    """The parsed file and what reads one part of it."""
    try:
        dataset = parse(path, ["Modality", *SEGMENT_TAGS, *CONTOUR_TAGS], pixels=True)
        return dataset, READERS[str(dataset.get("Modality", "")).upper()]
    except HEADER_ERRORS as error:
        raise CaseError(f"{path.name} is no readable DICOM SEG or RTSTRUCT; export it again.") from error
