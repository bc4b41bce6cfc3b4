"""What the image alone proves about its region: a pair of lungs that is whole, or soft tissue in a ring of skull.

Conservative on purpose: gas-filled bowel, foam under a leg, lungs cut by the border, the lung apices below a neck and
the lung bases above an abdomen prove nothing, and neither does an abdomen without labels. What is not proven is said,
not guessed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.body import COARSE_MM, CUBE, block_mean, coarse_body
from preprocessing.case import RegionName

LUNG_HU = (-960, -500)
LUNG_ML = 600
LUNG_MM = 150  # a lung's height from apex to base; real necks show up to 116 mm of it, real chests 196 mm and more
PIECE_ML = 100
BONE_HU = 250
BRAIN_HU = (-10, 90)
BRAIN_ML = 40  # a neck's scan holds but the lowest part of the brain
SKULL_MM2 = (3_000, 22_000)  # what a ring of skull encloses in an axial slice; a spinal canal or a joint: up to 800
SKULL_SLICES = 2
NECK_MM = 150
Spans = dict[RegionName, tuple[float, float]]
Range = tuple[float, float]


def region_from_image(image: NDArray[np.int16], spacing_mm: float) -> tuple[Spans, str]:
    """{region: (lower, upper) in mm above the first slice} of what is certain, and a sentence of why.

    Args:
        image: int16 HU, (z, y, x), axis-aligned LPS.
        spacing_mm: its isotropic spacing.
    """
    factor = max(1, round(COARSE_MM / spacing_mm))
    hu, step = block_mean(image, factor), factor * spacing_mm
    voxel_ml = step**3 / 1000
    lungs, brain = _lungs(hu, voxel_ml), _brain(hu, step)
    lung_range, brain_range = _z_range(lungs, step), _z_range(brain, step)
    spans: Spans = {}
    reasons = []
    if brain_range and (volume := brain.sum() * voxel_ml) >= BRAIN_ML:
        spans["head_neck"] = (_neck_end(brain_range, lung_range), brain_range[1] + 15)
        reasons.append(f"{volume:.0f} mL of soft tissue closed in by bone")
    if lung_range and (volume := lungs.sum() * voxel_ml) >= LUNG_ML and np.ptp(lung_range) >= LUNG_MM:
        spans["chest"] = (lung_range[0] - 10, lung_range[1] + 20)
        reasons.append(f"{volume:.0f} mL of closed lung, {np.ptp(lung_range):.0f} mm high")
    return spans, ", ".join(reasons) or "no map of the organs, and the image alone proves none"


def _neck_end(brain: Range, lungs: Range | None) -> float:
    """Where the neck ends below a brain: above the lungs where there are any, else at its usual length."""
    if lungs and lungs[1] < brain[0]:
        return lungs[1] + 10
    return brain[0] - NECK_MM


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


def _brain(hu: NDArray[np.float32], step_mm: float) -> NDArray[np.bool_]:
    """Brain-like voxels in a ring of bone within their axial slice; the largest piece, empty where it is no head's."""
    reach = 2
    padded = np.pad(hu > BONE_HU, ((0, 0), (reach, reach), (reach, reach)))
    bone = ndimage.binary_closing(padded, CUBE[:1], iterations=reach)[:, reach:-reach, reach:-reach]
    inside = np.stack([ndimage.binary_fill_holes(slice_) for slice_ in bone]) & ~bone
    inside[inside.sum((1, 2)) * step_mm**2 > SKULL_MM2[1]] = False
    pieces, count = ndimage.label(inside & (hu > BRAIN_HU[0]) & (hu < BRAIN_HU[1]))
    if not count:
        return inside
    brain = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    wide = np.count_nonzero(brain.sum((1, 2)) * step_mm**2 >= SKULL_MM2[0])
    return brain if wide >= SKULL_SLICES else np.zeros_like(brain)


def _z_range(mask: NDArray[np.bool_], step_mm: float) -> Range | None:
    slices = np.flatnonzero(mask.any((1, 2)))
    return (float(slices[0]) * step_mm, float(slices[-1]) * step_mm) if len(slices) else None
