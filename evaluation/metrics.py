"""Metrics: numbers with their unit and, where there is no number, with the reason.

Images are on the [-1, 1] scale of a window unless a name says HU; every PSNR and SSIM names its data range in its unit.
Masks are boolean, of the image's shape.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from preprocessing.regions import Window

COST = "noise_estimates"  # of a method, per voxel
DATA_RANGE = 2.0  # of the [-1, 1] scale: the window's width
SSIM_WINDOW = 7  # voxels, uniform
PRO_FPR = 0.3  # share of false positives up to which the per-region overlap is integrated


class Measurement(NamedTuple):
    """One metric's value; a value that is NaN carries its reason."""

    metric: str
    unit: str
    value: float
    reason: str = ""


def missing(metric: str, unit: str, reason: str) -> Measurement:
    """A metric that could not be measured, and why."""
    return Measurement(metric, unit, math.nan, reason)


def image_quality(x: NDArray, reference: NDArray, mask: NDArray, window: Window, against: str) -> list[Measurement]:
    """PSNR, SSIM and RMSE inside the mask against a reference called `against`.

    The data range is the window's width; SSIM is scikit-image's (uniform window of 7 voxels), its map averaged over
    the mask. RMSE is in HU.
    """
    span = f"range {window.width_hu:g} HU, against {against}"
    if not mask.any():
        units = {"psnr": f"dB ({span})", "ssim": f"1 (window {SSIM_WINDOW}, {span})", "rmse": f"HU (against {against})"}
        return [missing(metric, unit, "the mask is empty") for metric, unit in units.items()]
    return [
        Measurement("psnr", f"dB ({span})", psnr(x, reference, mask)),
        Measurement("ssim", f"1 (window {SSIM_WINDOW}, {span})", ssim(x, reference, mask)),
        Measurement("rmse", f"HU (against {against})", rmse_hu(x, reference, mask, window)),
    ]


def psnr(x: NDArray, reference: NDArray, mask: NDArray) -> float:
    """10·log10(2²/MSE) in dB over the mask; infinite for equal images."""
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(_inside(reference, mask), _inside(x, mask), data_range=DATA_RANGE))


def rmse_hu(x: NDArray, reference: NDArray, mask: NDArray, window: Window) -> float:
    """Root mean squared error in HU over the mask."""
    return float(np.sqrt(mean_squared_error(_inside(reference, mask), _inside(x, mask))) * window.hu_per_unit)


def ssim(x: NDArray, reference: NDArray, mask: NDArray) -> float:
    """The structural similarity of whole volumes, its local values averaged over the mask."""
    _, local = structural_similarity(
        np.asarray(reference, np.float64),
        np.asarray(x, np.float64),
        win_size=SSIM_WINDOW,
        data_range=DATA_RANGE,
        full=True,
    )
    return float(local[mask].mean())


def _inside(x: NDArray, mask: NDArray) -> NDArray[np.float64]:
    return np.asarray(x, np.float64)[mask]


def gain_ceiling_db(sigma_added: float, sigma_reference: float) -> float:
    """20·log10(σ_added/σ_ref): the PSNR gain of the noise-free image against a reference with noise of its own.

    Below 0 the noise-free image is farther from the reference than the noisy input is.
    """
    return 20 * math.log10(sigma_added / sigma_reference)


def auroc(scores: NDArray | Sequence[float], truth: NDArray | Sequence[bool], metric: str) -> Measurement:
    """Area under the ROC curve; NaN where only one class is there."""
    truth = np.asarray(truth, bool)
    if truth.all() or not truth.any():
        return missing(metric, "1", f"all {truth.size} are {'positive' if truth.size and truth.all() else 'negative'}")
    return Measurement(metric, "1", float(roc_auc_score(truth, np.asarray(scores, np.float64))))


def average_precision(scores: NDArray, truth: NDArray, metric: str) -> Measurement:
    """Average precision; its floor is the share of positives. NaN where there are none."""
    truth = np.asarray(truth, bool)
    if not truth.any():
        return missing(metric, "1", f"none of {truth.size} is positive")
    return Measurement(metric, "1", float(average_precision_score(truth, np.asarray(scores, np.float64))))


def pro(scores: NDArray, truth: NDArray, inside: NDArray, metric: str) -> Measurement:
    """Per-region overlap (Bergmann et al. 2020): the area under its curve up to 30 % false positives, over 0.3.

    The curve's height is the mean over the lesions (26-connected) of the share found of each, so that a small lesion
    counts as much as a large one. Chance is .15. NaN where `inside` (Z, Y, X) has no lesion or nothing else.
    """
    unit = f"1 (to FPR {PRO_FPR:g})"
    truth = np.asarray(truth, bool) & inside
    if not truth.any() or not (inside & ~truth).any():
        return missing(metric, unit, "no voxel is positive" if not truth.any() else "every voxel is positive")
    lesions, _ = ndimage.label(truth, np.ones((3, 3, 3)))
    weights = np.where(truth, 1 / np.bincount(lesions.ravel())[lesions], 1.0)
    rate, overlap, _ = roc_curve(
        truth[inside], np.asarray(scores, np.float64)[inside], sample_weight=weights[inside], drop_intermediate=False
    )
    return Measurement(metric, unit, _area_up_to(PRO_FPR, rate, overlap) / PRO_FPR)


def _area_up_to(limit: float, x: NDArray, y: NDArray) -> float:
    below = x <= limit
    return float(np.trapezoid(np.append(y[below], np.interp(limit, x, y)), np.append(x[below], limit)))


def dice(a: NDArray, b: NDArray) -> float:
    """2|A∩B|/(|A|+|B|) of two masks; 1 where both are empty."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def ring(mask: NDArray, inside: NDArray, gap: int = 1, width: int = 2) -> NDArray[np.bool_]:
    """Voxels of `inside` at more than `gap` and at most gap + width voxels from the mask."""
    distance = ndimage.distance_transform_edt(~np.asarray(mask, bool))
    return (distance > gap) & (distance <= gap + width) & np.asarray(inside, bool)


def contrast_hu(hu: NDArray, mask: NDArray, around: NDArray) -> float:
    """Mean HU of the mask minus that of the voxels around it; NaN where either is empty."""
    if not mask.any() or not around.any():
        return math.nan
    return float(np.mean(hu[mask], dtype=np.float64) - np.mean(hu[around], dtype=np.float64))


def histogram_distance_hu(hu: NDArray, reference_hu: NDArray, mask: NDArray) -> float:
    """First Wasserstein distance in HU between two images' values inside a mask."""
    return distance_hu(_inside(hu, mask), _inside(reference_hu, mask))


def distance_hu(values_hu: NDArray, reference_hu: NDArray) -> float:
    """First Wasserstein distance in HU between two 1-D sets of values, neither of them empty."""
    return float(stats.wasserstein_distance(values_hu, reference_hu))


def seam_ratio(hu: NDArray, reference_hu: NDArray, zone: NDArray) -> float:
    """Mean |step| across the border of a zone, over the same in the reference; 1 = no seam, NaN without a border."""
    steps, expected = _border_steps(hu, zone), _border_steps(reference_hu, zone)
    return float(steps.mean() / expected.mean()) if expected.size and expected.mean() > 0 else math.nan


def _border_steps(hu: NDArray, zone: NDArray) -> NDArray[np.float64]:
    hu = np.asarray(hu, np.float64)
    return np.concatenate([np.abs(np.diff(hu, axis=a))[np.diff(zone.astype(np.int8), axis=a) != 0] for a in range(3)])
