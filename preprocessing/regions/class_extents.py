"""How much there is of every anatomy class, and where it lies along each axis, on a grid of at most 3 mm.

Of a class that bounds a region only the largest piece counts (two of the thyroid, whose lobes may be apart; other
paired organs are two classes): a stray voxel far away must move no bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.anatomy import NUM_IDS, class_ids
from preprocessing.geometry import Geometry

GRID_MM = 3.0
LUNGS = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
CERVICAL = tuple(f"vertebrae_C{n}" for n in range(1, 8))
THORACIC = tuple(f"vertebrae_T{n}" for n in range(1, 13))
LUMBAR = tuple(f"vertebrae_L{n}" for n in range(1, 6))
SPINE = (*CERVICAL, *THORACIC, *LUMBAR)
SINGLE = (
    *LUNGS,
    *SPINE,
    *("brain", "skull", "heart", "liver", "spleen", "stomach", "pancreas", "urinary_bladder", "prostate", "sacrum"),
    *("kidney_left", "kidney_right", "clavicula_left", "clavicula_right", "hip_left", "hip_right"),
)
PIECES = {**dict.fromkeys(SINGLE, 1), "thyroid_gland": 2}


@dataclass(frozen=True)
class ClassExtents:
    """Counts of voxels per class and slice along z, y and x (slices × classes each) with the slices' world mm."""

    counts: tuple[NDArray[np.int64], ...]
    centres_mm: tuple[NDArray[np.float64], ...]
    voxel_ml: float

    def volume(self, *names: str) -> float:
        """mL of the named classes together."""
        return float(self.counts[0][:, _ids(names)].sum()) * self.voxel_ml

    def quantile(self, share: float, *names: str, axis: int = 0) -> float | None:
        """World mm along an axis below which this share of the named classes' voxels lies; None where there are none.

        Every voxel counts as spread evenly over its own length.
        """
        column = self.counts[axis][:, _ids(names)].sum(1)
        if not column.any():
            return None
        centres = self.centres_mm[axis]
        half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else GRID_MM / 2
        edges = np.append(centres - half, centres[-1] + half)
        below = np.concatenate([[0], np.cumsum(column)]) / column.sum()
        first, last = np.flatnonzero(column)[[0, -1]]
        return float(np.interp(share, below[first : last + 2], edges[first : last + 2]))


def measure_extents(anatomy: NDArray[np.uint8], geometry: Geometry) -> ClassExtents:
    """The extents of a map of ids 0-119 (z, y, x; axis-aligned LPS, isotropic)."""
    step = max(1, int(GRID_MM / geometry.spacing_mm[0] + 1e-6))
    step = step if min(anatomy.shape) > step // 2 else 1
    coarse = anatomy[step // 2 :: step, step // 2 :: step, step // 2 :: step].copy()
    _drop_stray_pieces(coarse)
    centres = [
        geometry.origin_mm[axis] + geometry.spacing_mm[axis] * (np.arange(length) * step + step // 2)
        for axis, length in enumerate(coarse.shape)
    ]
    counts = [_counts_along(coarse, axis) for axis in range(3)]
    return ClassExtents(tuple(counts), tuple(centres), float(np.prod(geometry.spacing_mm)) * step**3 / 1000)


def _counts_along(coarse: NDArray[np.uint8], axis: int) -> NDArray[np.int64]:
    length = coarse.shape[axis]
    slices = np.arange(length).reshape([length if a == axis else 1 for a in range(3)])
    return np.bincount((coarse + NUM_IDS * slices).ravel(), minlength=NUM_IDS * length).reshape(length, NUM_IDS)


def _drop_stray_pieces(coarse: NDArray[np.uint8]) -> None:
    """Clears, in place, all but the largest pieces of the classes of `PIECES`."""
    boxes = ndimage.find_objects(coarse, max_label=NUM_IDS - 1)
    for id_, kept in _pieces().items():
        box = boxes[id_ - 1]
        if box is None:
            continue
        pieces, count = ndimage.label(coarse[box] == id_, structure=np.ones((3, 3, 3)))
        if count > kept:
            smaller = 1 + np.argsort(np.bincount(pieces.ravel())[1:], kind="stable")[:-kept]
            coarse[box][np.isin(pieces, smaller)] = 0


@cache
def _pieces() -> dict[int, int]:
    return {class_ids()[name]: count for name, count in PIECES.items()}


def _ids(names: Iterable[str]) -> list[int]:
    return [class_ids()[name] for name in names]
