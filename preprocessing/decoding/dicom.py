"""A DICOM series as one volume: slices sorted by position, rescaled one by one, gaps refused.

The order of slices comes from ImagePositionPatient along the slice normal, never from file names or InstanceNumber;
slices are single files or the frames of enhanced ones. The step from slice to slice is the measured one, so a tilted
gantry gives a sheared geometry that is resampled later. Localizers, reformats and repeated copies of a slice are left
out with a finding. Every file is read once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError
from preprocessing.decoding.dicom_header import HEADER_ERRORS, HEADER_TAGS, DicomHeader, headers_of, is_dicom, parse
from preprocessing.decoding.dicom_kinds import DERIVED, check_derived
from preprocessing.decoding.dicom_pixels import PIXEL_TAGS, Tally, hu_frames, notes_of
from preprocessing.decoding.dicom_stacks import along_normal, has_place, normal, positions, slices_of, stacks
from preprocessing.decoding.raster import MAX_VOXELS, Raster, checked_geometry
from preprocessing.decoding.slice_grid import SAME_PLACE_MM, SliceGrid, even_grid, on_places


@dataclass
class _Read:
    """What the files gave so far: HU (slice, y, x) in order of reading with the header of each, and what was odd."""

    array: NDArray[np.int16]
    headers: list[DicomHeader] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """How messages call the series."""
        return f"series of {len({h.path for h in self.headers})} files from {Path(self.headers[0].path).name}"


def read_series(paths: Sequence[Path], stack: int = 0) -> Raster:
    """HU (z, y, x) int16 and the geometry of one volume, the `stack`th of `stacks`, in the CT slices of these files.

    Raises:
        CaseError: not CT, no geometry, mixed orientations or sizes, missing slices, or pixels that cannot be decoded.
    """
    read = _read_files(paths)
    chosen, copies = _without_copies(_chosen(read, stack), read)
    rows = _rows(read)
    order = [rows[header.path, header.frame.number] for header in chosen]
    array = read.array[: len(order)] if order == list(range(len(order))) else read.array[order]
    derived = _checked_derived(chosen, read.name)
    grid = _grid(chosen, read.name)
    array = array if grid.places is None else on_places(array, grid.places)
    row_mm, column_mm = chosen[0].frame.pixel_spacing_mm
    along = np.array(chosen[0].frame.orientation_xyz).reshape(2, 3)
    matrix = np.stack([grid.step_xyz, along[1] * row_mm, along[0] * column_mm], axis=1)[::-1]
    geometry, found = checked_geometry(array.shape, matrix, positions(chosen)[0][::-1], read.name)
    left_out = tuple(f"{count} {why} images left out" for why, count in sorted(read.left_out.items()))
    findings = (*left_out, *derived, *copies, *grid.findings, *notes_of(read.tally), *found)
    return Raster(array, geometry, "CT", findings=findings)


def _rows(read: _Read) -> dict[tuple[str, int], int]:
    return {(header.path, header.frame.number): row for row, header in enumerate(read.headers)}


def _read_files(paths: Sequence[Path]) -> _Read:
    """Every CT slice in the files; a file is parsed and decoded once."""
    read = _Read(np.empty((0, 0, 0), np.int16))
    for path in paths:
        dataset, headers = _ct_headers(path)
        slices = [header for header in headers if not header.frame.left_out]
        read.left_out.update(header.frame.left_out for header in headers if header.frame.left_out)
        _check_slices(slices, path.name)
        pixels = hu_frames(dataset, [header.frame for header in slices], path.name, read.tally)
        for header, plane in zip(slices, pixels, strict=True):
            _put(read, header, plane, len(paths) * len(headers))
    if not read.headers:
        kinds = " and ".join(sorted(read.left_out))
        raise CaseError(
            f"series of {len(paths)} files from {paths[0].name} holds only {kinds} images; it is no volume."
        )
    return read


def _ct_headers(path: Path) -> tuple[Dataset, list[DicomHeader]]:
    """A parsed file and the headers of its frames; refuses what is no CT."""
    try:
        if not is_dicom(path):
            raise ValueError("not DICOM")
        dataset = parse(path, HEADER_TAGS + PIXEL_TAGS, pixels=True)
        headers = headers_of(dataset, path)
    except HEADER_ERRORS as error:
        raise CaseError(
            f"{path.name} is not a readable DICOM file; copy it again or take it out of the folder."
        ) from error
    if headers[0].modality != "CT":
        raise CaseError(f"{path.name}: Modality {headers[0].shown_modality} is not CT; only CT can be ingested.")
    return dataset, headers


def _check_slices(headers: Sequence[DicomHeader], name: str) -> None:
    """Refuses frames that cannot be slices, before their pixels are decoded."""
    for header in headers:
        if header.samples != 1:
            raise CaseError(
                f"{name} holds colour pictures (SamplesPerPixel {header.samples}); a CT holds one number a pixel."
            )
        if not has_place(header):
            raise CaseError(
                f"{name} lacks ImagePositionPatient, ImageOrientationPatient or PixelSpacing; "
                "without them it is a picture, not a slice."
            )
    if len(headers) > 1 and len({header.frame.position_xyz for header in headers}) == 1:
        raise CaseError(
            f"{name} is a multi-frame CT of {len(headers)} frames in one place (no PerFrameFunctionalGroupsSequence "
            "tells them apart); convert it to single-frame or enhanced DICOM."
        )


def _put(read: _Read, header: DicomHeader, plane: NDArray[np.int16], expected: int) -> None:
    """Adds a slice; room for all that is expected is taken at the first one."""
    row = len(read.headers)
    if plane.shape != header.size or (row and plane.shape != read.array.shape[1:]):
        shown = f"{plane.shape}, not {read.array.shape[1:] if row else header.size} pixels"
        raise CaseError(
            f"{Path(header.path).name} differs from the first slice in size or from its header: it decodes to {shown}; "
            "put each orientation in a series."
        )
    if row == len(read.array):
        room = np.empty((max(expected, 2 * row), *plane.shape), np.int16)
        if room.size > MAX_VOXELS:
            raise CaseError(f"{Path(header.path).name}: {expected} frames of {plane.shape} pixels are too many.")
        room[:row] = read.array[:row] if row else 0
        read.array = room
    read.array[row] = plane
    read.headers.append(header)


def _chosen(read: _Read, stack: int) -> list[DicomHeader]:
    """The slices of one stack; refuses files that belong to another one."""
    slices, left_out = slices_of(read.headers)
    read.left_out.update(left_out)
    found = stacks(slices)
    if stack >= len(found):
        raise CaseError(f"{read.name} holds {len(found)} volumes and no number {stack}; list the source again.")
    chosen = found[stack]
    strangers = sorted({h.path for h in slices} - {h.path for h in chosen})
    if strangers:
        raise CaseError(
            f"{read.name}: {Path(strangers[0]).name} differs from the first slice in pixel spacing, orientation or "
            f"acquisition: {len(found)} volumes; ingest the folder, which makes each a case of its own."
        )
    return chosen


def _without_copies(chosen: list[DicomHeader], read: _Read) -> tuple[list[DicomHeader], tuple[str, ...]]:
    """One header a place, in order of position along the normal; two different slices in one place are refused."""
    ordered, rows = along_normal(chosen), _rows(read)
    kept = [ordered[0]]
    for header in ordered[1:]:
        before = kept[-1]
        if np.abs(np.subtract(header.frame.position_xyz, before.frame.position_xyz)).max() > SAME_PLACE_MM:
            kept.append(header)
        elif not np.array_equal(*(read.array[rows[h.path, h.frame.number]] for h in (header, before))):
            raise CaseError(
                f"{read.name}: {Path(header.path).name} and {Path(before.path).name} are different images of one place "
                f"(x, y, z = {header.frame.position_xyz}); give each acquisition a series of its own."
            )
    extra = len(ordered) - len(kept)
    return kept, (f"{extra} repeated copies of slices left out",) if extra else ()


def _checked_derived(chosen: list[DicomHeader], name: str) -> tuple[str, ...]:
    """A finding where the slices are derived; refused where they are no plain volume."""
    if not chosen[0].frame.derived:
        return ()
    check_derived(positions(chosen), max(header.frame.thickness_mm for header in chosen), name)
    return (f"{len(chosen)} slices say ImageType {DERIVED}: taken, since they are axial, in HU and evenly spaced",)


def _grid(chosen: list[DicomHeader], name: str) -> SliceGrid:
    if len(chosen) == 1:
        return SliceGrid(normal(chosen[0]) * (chosen[0].frame.thickness_mm or 1.0))
    return even_grid(positions(chosen), name)
