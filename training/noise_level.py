"""The noise level of an image, from its finest wavelet coefficients."""

import numpy as np
import pywt
from numpy.typing import NDArray

MAD_TO_SIGMA = 0.6745  # the third quartile of a standard normal distribution


def estimate_sigma(x_ZYX: NDArray, mask_ZYX: NDArray | None = None) -> float:
    """The standard deviation of white noise in an image: median |HHH| / 0.6745 (Donoho and Johnstone 1994).

    HHH is the Haar wavelet's diagonal band, in which 2×2×2 voxels give one coefficient; with a mask those count that
    lie wholly inside it, since a voxel that saturates carries no noise. NaN where there are none. Noise that is
    correlated between neighbours is underestimated.
    """
    even = tuple(slice(n - n % 2) for n in np.shape(x_ZYX))
    diagonal = pywt.dwtn(np.asarray(x_ZYX, np.float32)[even], "haar")["ddd"]
    if mask_ZYX is not None:
        z, y, x = diagonal.shape
        diagonal = diagonal[np.asarray(mask_ZYX, bool)[even].reshape(z, 2, y, 2, x, 2).all((1, 3, 5))]
    return float(np.median(np.abs(diagonal)) / MAD_TO_SIGMA) if diagonal.size else float("nan")
