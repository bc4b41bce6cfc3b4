"""Painted lesions: a ball of known contrast at a seeded place wholly inside an organ, so that the truth is known.

At contrast 0 it is a placebo: the image stays as it is and only the truth calls a part of it a lesion.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.geometry import distances_mm


def place_ball(organ_ZYX: NDArray, radius_mm: float, spacing_zyx: Sequence[float], seed: int) -> NDArray | None:
    """The weight of a ball, float32 in [0, 1], 0 outside the organ; its centre is drawn evenly from where it fits.

    Its edge falls linearly over one voxel (the mean spacing, mm) and is ½ at the radius. None where it fits nowhere;
    beyond the array's border there is no organ.
    """
    spacing = np.asarray(spacing_zyx, np.float64)
    edge_mm = float(spacing.mean())
    inside = np.pad(np.asarray(organ_ZYX, bool), 1)
    depth_mm = np.asarray(ndimage.distance_transform_edt(inside, sampling=spacing))[1:-1, 1:-1, 1:-1]
    centres = np.argwhere(depth_mm >= radius_mm + edge_mm / 2)
    if not len(centres):
        return None
    centre = centres[np.random.default_rng(seed).integers(len(centres))]
    distance_mm = distances_mm(organ_ZYX.shape, centre, spacing_zyx)
    return np.clip((radius_mm - distance_mm) / edge_mm + 0.5, 0, 1).astype(np.float32)


def paint_ball(hu_ZYX: NDArray, weight_ZYX: NDArray, contrast_hu: float) -> NDArray[np.float32]:
    """The image with the ball's contrast added, in HU; bit-equal to the image at contrast 0."""
    return (np.asarray(hu_ZYX, np.float32) + np.float32(contrast_hu) * weight_ZYX).astype(np.float32)


def ball_mask(weight_ZYX: NDArray) -> NDArray[np.bool_]:
    """The voxels that are at least half ball: the truth."""
    return np.asarray(weight_ZYX) >= 0.5
