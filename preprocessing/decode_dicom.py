"""A DICOM series as one volume: slices sorted by position, rescaled one by one, gaps refused.

The order of slices comes from ImagePositionPatient along the slice normal, never from file names or InstanceNumber.
The step from slice to slice is the measured one, so a tilted gantry gives a sheared geometry that is resampled later.
Localizers and repeated copies of a slice are left out with a finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from preprocessing.case import CaseError
from preprocessing.dicom_header import HEADER_ERRORS, DicomHeader, read_header
from preprocessing.raster import INT16, Raster, checked_geometry

SAME_PLACE_MM = 0.01
GAP = 1.5  # times the usual slice distance: a slice is missing
UNEVEN = 0.01  # of the slice distance: worth a finding
TOO_UNEVEN = 0.25
PIXEL_ERRORS = (*HEADER_ERRORS, RuntimeError, MemoryError)


@dataclass(frozen=True)
class _Stack:
    """Headers of the slices in order of position, the voxel-step matrix and origin (z, y, x; LPS)."""

    slices: list[DicomHeader]
    matrix: NDArray
    origin: NDArray
    findings: tuple[str, ...]


def read_series(paths: Sequence[Path]) -> Raster:
    """HU (z, y, x), int16 or float32, and the geometry of the single-frame CT slices in these files.

    Raises:
        CaseError: not CT, no geometry, mixed orientations or sizes, missing or unevenly spaced slices, or pixels that
            cannot be decoded.
    """
    headers, findings = _ct_slices(paths)
    name = _name(headers)
    _check_alike(headers, name)
    slices, copies = _without_copies(headers, name)
    stack = _stack(slices, name)
    array, odd = _pixels(stack.slices, name)
    geometry, found = checked_geometry(array.shape, stack.matrix, stack.origin, name)
    return Raster(array, geometry, "CT", findings=(*findings, *copies, *stack.findings, *odd, *found))


def _name(headers: Sequence[DicomHeader]) -> str:
    return f"series of {len(headers)} files from {Path(headers[0].path).name}"


def _ct_slices(paths: Sequence[Path]) -> tuple[list[DicomHeader], list[str]]:
    """The headers of CT images that are no localizers."""
    headers = []
    for path in paths:
        header = read_header(path)
        if header is None:
            raise CaseError(f"{path.name} is not a readable DICOM file; copy it again or take it out of the folder.")
        if header.modality != "CT":
            raise CaseError(f"{path.name}: Modality {header.modality or '(none)'} is not CT; only CT can be ingested.")
        headers.append(header)
    kept = [header for header in headers if not header.localizer]
    if not kept:
        raise CaseError(f"{_name(headers)} holds only localizer (scout) images; it is no volume.")
    left_out = len(headers) - len(kept)
    return kept, [f"{left_out} localizer images left out"] if left_out else []


def _check_alike(headers: Sequence[DicomHeader], name: str) -> None:
    """Refuses images that cannot be slices of one volume."""
    first = headers[0]
    if any(h.frames > 1 for h in headers):
        raise CaseError(
            f"{name} is a multi-frame CT of {max(h.frames for h in headers)} frames, which is not read yet; "
            "convert it to single-frame DICOM or NIfTI."
        )
    if any(h.samples != 1 for h in headers):
        raise CaseError(
            f"{name} holds colour pictures (SamplesPerPixel {first.samples}); a CT holds one number a pixel."
        )
    for header in headers:
        if len(header.position_xyz) != 3 or len(header.orientation_xyz) != 6 or len(header.pixel_spacing_mm) != 2:
            raise CaseError(
                f"{Path(header.path).name} lacks ImagePositionPatient, ImageOrientationPatient or PixelSpacing; "
                "without them it is a picture, not a slice."
            )
        turned = np.abs(np.subtract(header.orientation_xyz, first.orientation_xyz)).max()
        stretched = np.abs(np.subtract(header.pixel_spacing_mm, first.pixel_spacing_mm)).max()
        if header.size != first.size or turned > 1e-3 or stretched > 1e-4:
            raise CaseError(
                f"{name}: {Path(header.path).name} differs from the first slice in size ({header.size} against "
                f"{first.size}), pixel spacing or orientation (by {turned:.3f}); put each orientation in a series."
            )


def _normal(header: DicomHeader) -> NDArray:
    return np.cross(header.orientation_xyz[:3], header.orientation_xyz[3:])


def _without_copies(headers: Sequence[DicomHeader], name: str) -> tuple[list[DicomHeader], tuple[str, ...]]:
    """One header a place, in order of position along the normal; two different slices in one place are refused."""
    normal = _normal(headers[0])
    ordered = sorted(headers, key=lambda h: (float(np.dot(normal, h.position_xyz)), h.path))
    kept = [ordered[0]]
    for header in ordered[1:]:
        if np.abs(np.subtract(header.position_xyz, kept[-1].position_xyz)).max() > SAME_PLACE_MM:
            kept.append(header)
        elif header.instance != kept[-1].instance and not _same_pixels(header, kept[-1]):
            raise CaseError(
                f"{name}: {Path(header.path).name} and {Path(kept[-1].path).name} are different images of one place "
                f"(x, y, z = {header.position_xyz}); give each acquisition a series of its own."
            )
    extra = len(ordered) - len(kept)
    return kept, (f"{extra} repeated copies of slices left out",) if extra else ()


def _same_pixels(one: DicomHeader, other: DicomHeader) -> bool:
    return bool(np.array_equal(_slice_hu(one.path)[0], _slice_hu(other.path)[0]))


def _stack(slices: list[DicomHeader], name: str) -> _Stack:
    """The geometry of sorted slices: an even grid through the first and the last position."""
    first = slices[0]
    row_mm, column_mm = first.pixel_spacing_mm
    along_x, along_y = np.array(first.orientation_xyz[:3]), np.array(first.orientation_xyz[3:])
    positions = np.array([s.position_xyz for s in slices])
    if len(slices) == 1:
        step, findings = _normal(first) * (first.thickness_mm or 1.0), ()
    else:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        findings = _check_even(positions, step, name)
    matrix = np.stack([step, along_y * row_mm, along_x * column_mm], axis=1)[::-1]
    return _Stack(slices, matrix, positions[0][::-1], findings)


def _check_even(positions: NDArray, step: NDArray, name: str) -> tuple[str, ...]:
    """Findings on slices (n, 3) that lie slightly off an even grid; refuses gaps and clearly uneven slices."""
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(gaps))
    wide = np.flatnonzero(gaps >= GAP * usual)
    if len(wide) and gaps[wide[0]] > 0:
        missing = int(sum(round(gaps[i] / usual) - 1 for i in wide))
        raise CaseError(
            f"{name}: about {missing} slices are missing (the usual distance is {usual:g} mm, after slice "
            f"{wide[0] + 1} it is {gaps[wide[0]]:g} mm); copy the whole series."
        )
    grid = positions[0] + np.arange(len(positions))[:, None] * step
    off = float(np.linalg.norm(positions - grid, axis=1).max())
    if off > TOO_UNEVEN * usual:
        raise CaseError(
            f"{name}: slice distance varies from {gaps.min():g} to {gaps.max():g} mm; "
            "reconstruct it with one distance or ingest the parts as series of their own."
        )
    return (f"slices lie up to {off:.2f} mm off an even grid",) if off > UNEVEN * usual else ()


def _pixels(slices: Sequence[DicomHeader], name: str) -> tuple[NDArray, list[str]]:
    """HU of all slices, int16 where every slice is whole numbers, else float32."""
    out, notes, clipped = np.empty((len(slices), *slices[0].size), np.int16), [], 0
    bare = 0
    for k, header in enumerate(slices):
        hu, has_rescale = _slice_hu(header.path)
        bare += not has_rescale
        if hu.shape != slices[0].size:
            raise CaseError(f"{name}: {Path(header.path).name} decodes to {hu.shape}, not {slices[0].size} pixels.")
        if hu.dtype.kind == "f" and out.dtype == np.int16:
            out = out.astype(np.float32)
        if out.dtype == np.int16:
            clipped += int(((hu < INT16.min) | (hu > INT16.max)).sum())
            hu = np.clip(hu, INT16.min, INT16.max)
        out[k] = hu
    if clipped:
        notes.append(f"{clipped} voxels lay outside int16 and were clipped")
    if bare:
        notes.append(f"{bare} slices carry no RescaleSlope; their stored values were taken as HU")
    return out, notes


def _slice_hu(path: str) -> tuple[NDArray, bool]:
    """HU (y, x), int32 where slope and intercept are whole, and whether the file carries a rescale at all."""
    name = Path(path).name
    try:
        dataset = pydicom.dcmread(path, force=True)
        pixels = dataset.pixel_array
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    except PIXEL_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CaseError(f"{name}: its pixels cannot be decoded ({reason}); copy or export it again.") from error
    has_rescale = "RescaleSlope" in dataset
    if slope.is_integer() and intercept.is_integer() and pixels.dtype.kind in "iu":
        return pixels.astype(np.int32) * np.int32(slope) + np.int32(intercept), has_rescale
    return (pixels * slope + intercept).astype(np.float32), has_rescale
