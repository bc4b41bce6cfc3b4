"""A result as a DICOM series: one file a slice, each with the header of the slice it was made from.

On the source's own grid a slice keeps its header and its place; on another grid, or where the decoded volume was
interpolated between uneven slices, it takes the header of the nearest one.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from preprocessing.case import Case, CaseError
from preprocessing.decoding.dicom_header import HEADER_ERRORS, DicomHeader
from preprocessing.decoding.dicom_stacks import normal
from preprocessing.encoding.derived import Derivation, mark
from preprocessing.encoding.pixels import set_all, set_changed
from preprocessing.encoding.placed import alone, put
from preprocessing.encoding.source_slices import opened, source_slices
from preprocessing.encoding.values import Scale, scale_of
from preprocessing.geometry import Geometry


def write_changed(
    folder: Path, case: Case, before: NDArray[np.int16], after: NDArray[np.int16], derivation: Derivation
) -> int:
    """Writes the slices of a case with the HU `after` (z, y, x) where they differ from `before`, one to one.

    Returns how many voxels were clipped to what their slice can store.

    Raises:
        CaseError: a slice cannot be written.
    """
    clipped = 0
    folder.mkdir()
    for number, (header, dataset, stored) in enumerate(opened(source_slices(case))):
        old, new = before[number], after[number]
        with _writing(header):
            _prepare(dataset, header, derivation, number)
            clipped += set_changed(dataset, header.frame, stored, old != new, new, _scale(case, header))
            dcmwrite(_file(folder, number, len(after)), dataset, enforce_file_format=True)
    return clipped


def write_regridded(
    folder: Path, case: Case, hu_ZYX: NDArray[np.int16], geometry: Geometry, derivation: Derivation
) -> int:
    """Writes slices on a grid of their own, each with the header of the case's nearest slice; returns as above.

    Raises:
        CaseError: a slice cannot be written.
    """
    clipped = 0
    folder.mkdir()
    for number, (header, dataset, _) in enumerate(opened(_nearest(source_slices(case), geometry))):
        with _writing(header):
            _prepare(dataset, header, derivation, number)
            put(dataset, geometry, number)
            clipped += set_all(dataset, hu_ZYX[number], _scale(case, header))
            dcmwrite(_file(folder, number, len(hu_ZYX)), dataset, enforce_file_format=True)
    return clipped


def _nearest(slices: Sequence[DicomHeader], geometry: Geometry) -> list[DicomHeader]:
    """For each slice of a geometry the one whose plane is nearest to its centre."""
    across = normal(slices[0])
    places = np.array([across @ header.frame.position_xyz for header in slices])
    depth, height, width = geometry.shape
    centres = [geometry.world((k, (height - 1) / 2, (width - 1) / 2))[::-1] for k in range(depth)]
    return [slices[int(np.abs(places - across @ centre).argmin())] for centre in centres]


def _prepare(dataset: Dataset, header: DicomHeader, derivation: Derivation, number: int) -> None:
    mark(dataset, header, derivation, number)
    alone(dataset, header.frame, number + 1)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID


def _scale(case: Case, header: DicomHeader) -> Scale:
    frame = header.frame
    return scale_of(case, 1.0 if frame.slope is None else frame.slope, frame.intercept or 0.0)


def _file(folder: Path, number: int, count: int) -> Path:
    return folder / f"{number + 1:0{max(4, len(str(count)))}d}.dcm"


@contextmanager
def _writing(header: DicomHeader) -> Generator[None]:
    """What a slice's header does not allow is said of its file."""
    try:
        yield
    except OSError:
        raise
    except HEADER_ERRORS as error:
        raise CaseError(
            f"{Path(header.path).name} has a header that cannot be written again ({type(error).__name__}); write the "
            "result as .nii.gz."
        ) from error
