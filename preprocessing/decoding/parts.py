"""The named parts of a DICOM SEG or RTSTRUCT as masks on the image's grid; parts may overlap, so each has its own."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError, LabelFile
from preprocessing.decoding.dicom_header import HEADER_ERRORS, parse
from preprocessing.decoding.rtstruct import CONTOUR_TAGS, read_regions
from preprocessing.decoding.seg import SEGMENT_TAGS, read_segments
from preprocessing.decoding.seg_grid import read_own_grid
from preprocessing.geometry import Geometry

Part = tuple[int, NDArray[np.uint8], str]  # number, mask, what of it lies outside the image
Reader = Callable[[Dataset, Sequence[int], Geometry, str], Iterator[Part]]
READERS: dict[str, Reader] = {"SEG": read_segments, "RTSTRUCT": read_regions}


def read_parts(label: LabelFile, geometry: Geometry, findings: list[str]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Number and mask (z, y, x; 0/1) of each part that `label.classes` names; what was odd is added to `findings`.

    Raises:
        CaseError: the file cannot be read, or a part of it does not lie on the slices of the image.
    """
    name, numbers = Path(label.path).name, sorted({value for value, _ in label.classes})
    try:
        dataset = parse(Path(label.path), ["Modality", *SEGMENT_TAGS, *CONTOUR_TAGS], pixels=True)
        read = READERS[str(dataset.get("Modality", "")).upper()] if not label.own_grid else read_own_grid
        for number, mask, outside in read(dataset, numbers, geometry, name):
            if outside:
                findings.append(f"{name}: {outside} of part {number} lie outside the image and were left out")
            if not mask.any():
                findings.append(f"{name}: part {number} marks no voxel of the image")
            yield number, mask
    except HEADER_ERRORS as error:
        kind = type(error).__name__
        raise CaseError(f"{name} is no readable DICOM SEG or RTSTRUCT ({kind}); export it again.") from error
