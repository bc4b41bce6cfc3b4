"""Noise texture and edge sharpness, which a PSNR hides: it rewards blurring.

Arrays are (Z, Y, X) in HU or, for sharpness, on any one scale; spacing in mm in the same order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.metrics import Measurement, missing

EDGE_SHARE = 0.05  # of the mask's voxels: those with the steepest reference


def noise_power(error_hu: NDArray, mask: NDArray, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """The 3-D noise power spectrum (Z, Y, X) of an error inside a mask that is not empty, in HU²·mm³.

    |DFT|²·ΔxΔyΔz/M with M voxels in the mask (ICRU 87; a full box has M = N). Summed over frequencies and multiplied
    by their step 1/(N·ΔxΔyΔz) it is the error's mean square in the mask.
    """
    transformed = np.fft.fftn(np.where(mask, error_hu, 0.0).astype(np.float64))
    return np.abs(transformed) ** 2 * (np.prod(spacing_mm) / np.count_nonzero(mask))


def radial_profile(power: NDArray, spacing_mm: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies (1/mm) up to the lowest Nyquist frequency and the spectrum's mean in each shell, without f = 0."""
    axes = [np.fft.fftfreq(n, d) for n, d in zip(power.shape, spacing_mm, strict=True)]
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
    step = max(1 / (n * d) for n, d in zip(power.shape, spacing_mm, strict=True))
    shell = np.rint(frequency / step).astype(int)
    shells = np.arange(1, int(0.5 / max(spacing_mm) / step) + 1)
    return shells * step, np.asarray(ndimage.mean(power, shell, shells), np.float64)


def noise_frequencies(error_hu: NDArray, mask: NDArray, spacing_mm: Sequence[float], against: str) -> list[Measurement]:
    """Mean and peak frequency of the radial noise power spectrum (AAPM TG-233); blurred noise has lower ones."""
    names, unit = ("nps_mean_frequency", "nps_peak_frequency"), f"1/mm (against {against})"
    if not mask.any():
        return [missing(name, unit, "the mask is empty") for name in names]
    frequency, profile = radial_profile(noise_power(error_hu, mask, spacing_mm), spacing_mm)
    if not profile.size or not profile.sum() > 0:
        return [missing(name, unit, "there is no error that varies inside the mask") for name in names]
    values = (float(frequency @ profile / profile.sum()), float(frequency[profile.argmax()]))
    return [Measurement(name, unit, value) for name, value in zip(names, values, strict=True)]


def edge_sharpness(
    x: NDArray, reference: NDArray, mask: NDArray, spacing_mm: Sequence[float], against: str
) -> Measurement:
    """Σ ∇x·n / Σ ∇reference·n over the mask's steepest 5 %; 1 = as sharp as the reference, less = blurred.

    n is the direction of the reference's gradient after a Gaussian of 1 voxel, which also says where it is steep. The
    ratio is linear in x, so noise that is independent of the reference does not pass for sharpness.
    """
    name, unit = "edge_sharpness", f"1 (against {against})"
    if not mask.any():
        return missing(name, unit, "the mask is empty")
    direction = _gradient(ndimage.gaussian_filter(np.asarray(reference, np.float64), 1), spacing_mm)
    steepness = np.sqrt((direction**2).sum(0))
    edges = mask & (steepness >= np.quantile(steepness[mask], 1 - EDGE_SHARE)) & (steepness > 0)
    if not edges.any():
        return missing(name, unit, "the reference is flat inside the mask")
    normal = direction[:, edges] / steepness[edges]
    slopes = [float((_gradient(v, spacing_mm)[:, edges] * normal).sum()) for v in (x, reference)]
    return Measurement(name, unit, slopes[0] / slopes[1])


def _gradient(image: NDArray, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    return np.stack(np.gradient(np.asarray(image, np.float64), *spacing_mm))
