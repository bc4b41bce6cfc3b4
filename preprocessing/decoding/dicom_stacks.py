"""Stacks: the slices of a DICOM series sorted into volumes by what their headers say of place.

Slices of one stack share image size, orientation, pixel spacing and StackID. Where two slices would then lie in one
place, or slices would be missing, the first mark (temporal position, acquisition, cardiac phase, kernel, kVp,
thickness) that tells whole volumes apart is used. Slices are in order of position along their normal, never of name or
number.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from infra.fingerprint import fingerprint
from preprocessing.decoding.dicom_header import DicomHeader
from preprocessing.decoding.dicom_kinds import DERIVED
from preprocessing.decoding.slice_grid import is_even, is_one_volume

SAME_DIRECTION = 1e-3
SAME_SPACING_MM = 1e-4
FEWEST_SLICES = 3  # of a volume that a mark tells apart

Stack = list[DicomHeader]


def slices_of(headers: Sequence[DicomHeader]) -> tuple[Stack, Counter[str]]:
    """The slices of a CT series, derived ones only where there are no others, and why the rest is none, counted."""
    slices = [header for header in headers if not header.frame.left_out]
    original = [header for header in slices if not header.frame.derived]
    left_out = Counter(header.frame.left_out for header in headers if header.frame.left_out)
    if original and len(original) < len(slices):
        left_out[f"derived (ImageType {DERIVED}, beside original slices)"] = len(slices) - len(original)
    return original or slices, left_out


def stacks(headers: Iterable[DicomHeader]) -> list[Stack]:
    """The volumes in the slices of one series, in a stable order; slices without a place are in stacks of their own."""
    groups: list[Stack] = []
    for header in headers:
        home = next((group for group in groups if _same_geometry(header, group[0])), None)
        if home is None:
            groups.append([header])
        else:
            home.append(header)
    found = [part for group in groups for part in _parted(along_normal(group))]
    return sorted(found, key=lambda stack: (stack_key(stack), stack[0].path, stack[0].frame.number))


def stack_key(stack: Stack) -> str:
    """8 hex characters that stay the same for a stack of a series, whatever else lies beside it."""
    first = stack[0]
    common = [marks[0] if len(set(marks)) == 1 else "" for marks in zip(*(h.frame.marks for h in stack), strict=True)]
    turned = [round(v, 2) + 0.0 for v in first.frame.orientation_xyz]
    spacing = [round(v, 3) for v in first.frame.pixel_spacing_mm]
    return fingerprint([first.series, first.modality, first.size, turned, spacing, first.frame.stack, common])[:8]


def along_normal(headers: Sequence[DicomHeader]) -> Stack:
    """The headers in order of position along the first one's normal; as they are where one has no place."""
    if not all(has_place(header) for header in headers):
        return sorted(headers, key=lambda h: (h.path, h.frame.number))
    across = normal(headers[0])
    return sorted(headers, key=lambda h: (round(float(across @ h.frame.position_xyz), 4), h.path, h.frame.number))


def has_place(header: DicomHeader) -> bool:
    """True where position, orientation and pixel spacing are all there."""
    frame = header.frame
    return (len(frame.position_xyz), len(frame.orientation_xyz), len(frame.pixel_spacing_mm)) == (3, 6, 2)


def normal(header: DicomHeader) -> NDArray[np.float64]:
    """The unit vector (x, y, z) across a slice's plane."""
    return np.cross(header.frame.orientation_xyz[:3], header.frame.orientation_xyz[3:])


def positions(stack: Sequence[DicomHeader]) -> NDArray[np.float64]:
    """The positions (n, 3) of slices, x, y, z in mm."""
    return np.array([header.frame.position_xyz for header in stack])


def _same_geometry(one: DicomHeader, other: DicomHeader) -> bool:
    a, b = one.frame, other.frame
    return (
        (one.modality, one.size, one.samples, a.stack) == (other.modality, other.size, other.samples, b.stack)
        and has_place(one) == has_place(other)
        and _close(a.orientation_xyz, b.orientation_xyz, SAME_DIRECTION)
        and _close(a.pixel_spacing_mm, b.pixel_spacing_mm, SAME_SPACING_MM)
    )


def _close(one: tuple[float, ...], other: tuple[float, ...], limit: float) -> bool:
    return len(one) == len(other) and all(abs(a - b) <= limit for a, b in zip(one, other, strict=True))


def _parted(stack: Stack) -> list[Stack]:
    """The stack itself where it is one volume, else its volumes by the first mark that makes every part one."""
    if not all(has_place(header) for header in stack):
        return [stack]
    places = positions(_first_copies(stack))
    if is_even(places):
        return [stack]
    for mark in range(len(stack[0].frame.marks)):
        parts: dict[str, Stack] = {}
        for header in stack:
            parts.setdefault(header.frame.marks[mark], []).append(header)
        if len(parts) < 2 or min(map(len, parts.values())) < FEWEST_SLICES:
            continue
        clean = all(is_one_volume(positions(_first_copies(part))) for part in parts.values())
        if clean and (not is_one_volume(places) or _interleaved(list(parts.values()))):
            return [volume for part in parts.values() for volume in _parted(part)]
    return [stack]


def _interleaved(parts: list[Stack]) -> bool:
    """True where the z-ranges of two parts overlap."""
    across = normal(parts[0][0])
    ranges = sorted((float(across @ p[0].frame.position_xyz), float(across @ p[-1].frame.position_xyz)) for p in parts)
    return any(low < before for (_, before), (low, _) in pairwise(ranges))


def _first_copies(stack: Stack) -> Stack:
    """One header for each instance and frame, so that a file that lies there twice is no second image of its place."""
    return list({(h.instance or h.path, h.frame.number): h for h in reversed(stack)}.values())[::-1]
