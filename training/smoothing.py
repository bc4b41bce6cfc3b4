"""Smoothing that does not look over a mask's border."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth_inside(x: NDArray, mask: NDArray, width: float) -> NDArray[np.float64]:
    """A Gaussian of `width` voxels that sees only the mask (normalised convolution); 0 outside."""
    inside = np.asarray(mask, np.float64)
    if width <= 0:
        return np.asarray(x, np.float64) * inside
    weight = ndimage.gaussian_filter(inside, width, mode="constant")
    value = ndimage.gaussian_filter(np.asarray(x, np.float64) * inside, width, mode="constant")
    return np.divide(value, weight, out=np.zeros_like(value), where=(inside > 0) & (weight > 0))
