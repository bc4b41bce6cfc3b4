"""What a result holds, checked, and as the numbers that its file stores.

HU that did not change keep the source's stored numbers, the others are re-encoded; masks become one label map.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import Case, CaseError
from preprocessing.decoding.raster import INT16

MOST_LABELS = 255


@dataclass(frozen=True)
class Scale:
    """HU = `slope` x stored + `intercept`."""

    slope: float = 1.0
    intercept: float = 0.0

    def stored(self, hu: NDArray) -> NDArray[np.float64]:
        """The stored numbers, not rounded, of HU."""
        return (hu.astype(np.float64) - self.intercept) / self.slope

    def hu(self, stored: NDArray) -> NDArray[np.float64]:
        """The HU, not rounded, of stored numbers."""
        return stored * self.slope + self.intercept


def scale_of(case: Case, slope: float, intercept: float) -> Scale:
    """The scale of a file's own slope and intercept, followed by those that the case's data set states.

    Raises:
        CaseError: every stored number means the same HU.
    """
    stated = (case.stated.slope, case.stated.intercept) if case.stated else (1.0, 0.0)
    if not slope:
        raise CaseError(f"{case.id}: its rescale slope is 0, no HU can be stored with it; write the result as .nii.gz.")
    return Scale(slope * stated[0], intercept * stated[0] + stated[1])


def checked_hu(hu_ZYX: NDArray, shape: tuple[int, ...], name: str) -> NDArray[np.int16]:
    """A result's HU rounded to int16.

    Raises:
        CaseError: another shape, no numbers, not finite, or outside int16.
    """
    if hu_ZYX.shape != shape:
        raise CaseError(f"{name}: the result has {hu_ZYX.shape} voxels (z, y, x), its grid {shape}; bring it onto it.")
    if hu_ZYX.dtype.kind not in "iuf" or not hu_ZYX.size:
        raise CaseError(f"{name}: the result holds {hu_ZYX.size} values of type {hu_ZYX.dtype}; give HU.")
    low, high = hu_ZYX.min(), hu_ZYX.max()  # of NaN, NaN
    if not INT16.min <= low <= high <= INT16.max:
        raise CaseError(f"{name}: the result runs from {low:g} to {high:g} HU, not within int16; it is no CT.")
    return hu_ZYX if hu_ZYX.dtype == np.int16 else np.rint(hu_ZYX).astype(np.int16)


def with_changes(stored: NDArray, before: NDArray[np.int16], after: NDArray[np.int16], scale: Scale) -> NDArray:
    """The source's stored numbers (z, y, x) with those re-encoded whose HU differ; of a wider type if needed.

    `before` and `after` are the HU of source and result on the same grid.
    """
    out = stored.astype(_wide_enough(stored.dtype, before, after, scale))
    for plane, old, new in zip(out, before, after, strict=True):
        changed = old != new
        numbers = scale.stored(new[changed])
        plane[changed] = np.rint(numbers) if out.dtype.kind in "iu" else numbers
    return out


def _wide_enough(dtype: np.dtype, before: NDArray[np.int16], after: NDArray[np.int16], scale: Scale) -> np.dtype:
    """The stored type, or the next that holds every changed voxel as well."""
    changes = [new[new != old] for old, new in zip(before, after, strict=True)]
    ends = [end for values in changes if values.size for end in (values.min(), values.max())]
    for number in np.rint(scale.stored(np.array(ends))):
        if dtype.kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
            dtype = np.promote_types(dtype, np.min_scalar_type(int(number)))
    return dtype


def checked_mask(mask_ZYX: NDArray, shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    """A mask as uint8.

    Raises:
        CaseError: another shape, or anything but 0 and 1 in it.
    """
    if mask_ZYX.shape != shape:
        raise CaseError(f"{name}: the mask has {mask_ZYX.shape} voxels (z, y, x), its grid {shape}; bring it onto it.")
    if mask_ZYX.dtype != np.bool_ and not (mask_ZYX.min() >= 0 and mask_ZYX.max() <= 1 and _is_whole(mask_ZYX)):
        raise CaseError(f"{name}: the mask runs from {mask_ZYX.min():g} to {mask_ZYX.max():g}; a mask holds 0 and 1.")
    return mask_ZYX.astype(np.uint8)


def numbered(masks: Mapping[str, NDArray[np.uint8]], name: str) -> NDArray[np.uint8]:
    """One label map of masks: the n-th is value n.

    Raises:
        CaseError: two of them share a voxel, or they are more than a byte can tell apart.
    """
    labels = np.zeros_like(next(iter(masks.values())))
    if len(masks) > MOST_LABELS:
        raise CaseError(f"{name}: {len(masks)} masks are more than the {MOST_LABELS} that a label map tells apart.")
    for number, (label, mask) in enumerate(masks.items(), 1):
        if (labels[mask > 0] > 0).any():
            raise CaseError(f"{name}: the mask {label} overlaps another; write a DICOM SEG, or a file for each mask.")
        labels[mask > 0] = number
    return labels


def _is_whole(array: NDArray) -> bool:
    return array.dtype.kind in "iu" or bool((array == np.rint(array)).all())
