"""What an image alone proves about its region: closed lungs, or soft tissue closed in by bone.

Conservative on purpose: gas-filled bowel, foam under a leg and lungs cut by the border prove nothing, and neither does
an abdomen without labels. What is not proven is said, not guessed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.body import COARSE_MM, CUBE, block_mean, coarse_body
from preprocessing.case import RegionName

LUNG_HU = (-960, -500)
LUNG_ML = 600
PIECE_ML = 100
BONE_HU = 250
BRAIN_HU = (-10, 90)
BRAIN_ML = 200
HEAD_MM2 = 22_000
NECK_MM = 150
Spans = dict[RegionName, tuple[float, float]]


def region_from_image(image: NDArray[np.int16], spacing_mm: float) -> tuple[Spans, str]:
    """{region: (lower, upper) in mm above the first slice} of what is certain, and a sentence of why.

    Args:
        image: int16 HU, (z, y, x), axis-aligned LPS.
        spacing_mm: its isotropic spacing.
    """
    factor = max(1, round(COARSE_MM / spacing_mm))
    hu, step = block_mean(image, factor), factor * spacing_mm
    voxel_ml = step**3 / 1000
    lungs, brain = _lungs(hu, voxel_ml), _enclosed_by_bone(hu, step)
    spans: Spans = {}
    reasons = []
    if (volume := brain.sum() * voxel_ml) >= BRAIN_ML:
        low, high = _z_range(brain, step)
        spans["head_neck"] = (low - NECK_MM, high + 15)
        reasons.append(f"{volume:.0f} mL of soft tissue closed in by bone")
    if (volume := lungs.sum() * voxel_ml) >= LUNG_ML:
        low, high = _z_range(lungs, step)
        spans["chest"] = (low - 10, high + 20)
        reasons.append(f"{volume:.0f} mL of closed lung")
    return spans, ", ".join(reasons) or "no map of the organs, and the image alone proves none"


def _lungs(hu: NDArray[np.float32], voxel_ml: float) -> NDArray[np.bool_]:
    """Lung-like pieces of some size inside the body, without airways, that stay clear of the volume's sides."""
    body = ndimage.binary_erosion(coarse_body(hu, -800), iterations=2)
    lung = ndimage.binary_opening((hu > LUNG_HU[0]) & (hu < LUNG_HU[1]) & body, CUBE, iterations=2)
    pieces, count = ndimage.label(lung)
    if not count:
        return lung
    keep = np.bincount(pieces.ravel()) * voxel_ml >= PIECE_ML
    for side in (pieces[:, :2], pieces[:, -2:], pieces[:, :, :2], pieces[:, :, -2:]):
        keep[np.unique(side)] = False
    keep[0] = False
    return keep[pieces]


def _enclosed_by_bone(hu: NDArray[np.float32], step_mm: float) -> NDArray[np.bool_]:
    """Brain-like voxels in a ring of bone, no wider than a head, within their axial slice; the largest piece."""
    reach = 2
    padded = np.pad(hu > BONE_HU, ((0, 0), (reach, reach), (reach, reach)))
    bone = ndimage.binary_closing(padded, CUBE[:1], iterations=reach)[:, reach:-reach, reach:-reach]
    inside = np.stack([ndimage.binary_fill_holes(slice_) for slice_ in bone]) & ~bone
    inside[inside.sum((1, 2)) * step_mm**2 > HEAD_MM2] = False
    pieces, count = ndimage.label(inside & (hu > BRAIN_HU[0]) & (hu < BRAIN_HU[1]))
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else inside


def _z_range(mask: NDArray[np.bool_], step_mm: float) -> tuple[float, float]:
    slices = np.flatnonzero(mask.any((1, 2)))
    return float(slices[0]) * step_mm, float(slices[-1]) * step_mm
