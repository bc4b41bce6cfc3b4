"""Baselines: what a task costs without a trained model.

Smoothers take and give images on the [-1, 1] scale. Their one parameter is chosen on validation cases; candidates are
multiples of the noise level, so that one choice serves every case of a setting. `label-mean` paints each class with
its mean and shows what the labels alone would buy.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters, restoration

from preprocessing.anatomy import BACKGROUND, NUM_IDS
from training.smoothing import smooth_inside

Smoother = Callable[[NDArray, float], NDArray]


def gaussian(x: NDArray, width: float) -> NDArray[np.float32]:
    """A Gaussian filter of `width` voxels."""
    return ndimage.gaussian_filter(np.asarray(x, np.float32), width, mode="nearest")


def total_variation(x: NDArray, weight: float) -> NDArray[np.float32]:
    """Chambolle's total-variation minimiser."""
    return restoration.denoise_tv_chambolle(np.asarray(x, np.float32), weight=weight, max_num_iter=100)


def nonlocal_means(x: NDArray, sigma: float, strength: float, distance: int) -> NDArray[np.float32]:
    """Non-local means with patches of 3 voxels, h = strength·σ and the noise level told."""
    return restoration.denoise_nl_means(
        np.asarray(x, np.float32),
        patch_size=3,
        patch_distance=distance,
        h=strength * sigma,
        sigma=sigma,
        fast_mode=True,
    )


CANDIDATES: dict[str, tuple[float, ...]] = {
    "gaussian": (0.4, 0.6, 0.8, 1.0),  # voxels
    "tv": (0.5, 0.8, 1.2, 1.8),  # times σ
    "nlm": (0.6, 1.0),  # times σ
}


def smooth(method: str, x: NDArray, sigma: float, parameter: float, nlm_distance: int) -> NDArray[np.float32]:
    """One of the CANDIDATES' methods with its parameter, for noise of level sigma."""
    if method == "gaussian":
        return gaussian(x, parameter)
    if method == "tv":
        return total_variation(x, parameter * sigma)
    return nonlocal_means(x, sigma, parameter, nlm_distance)


def choose(candidates: Sequence[float], score: Callable[[float], float]) -> float:
    """The candidate with the highest score; the first of equals."""
    return max(candidates, key=score)


def upsample_depth(y_KYX: NDArray, factor: int, order: int) -> NDArray[np.float32]:
    """`factor` times as many slices: linear (order 1) or cubic B-spline (order 3) between the block centres.

    Fine slice i lies at (i + 0.5)/factor − 0.5 of the coarse ones; beyond the outermost centres the edge goes on.
    """
    fine = ndimage.zoom(np.asarray(y_KYX, np.float32), (factor, 1, 1), order=order, mode="nearest", grid_mode=True)  # ty: ignore[no-matching-overload]
    return np.asarray(fine, np.float32)


def class_means(images: Iterable[tuple[NDArray, NDArray]]) -> NDArray[np.float32]:
    """The mean of each class (120) over pairs of image on [-1, 1] and anatomy ids.

    A class never seen gets the mean of the body; without any body all of it is −1, air.
    """
    total, count = np.zeros(NUM_IDS), np.zeros(NUM_IDS)
    for image, anatomy in images:
        ids = np.asarray(anatomy).ravel()
        total += np.bincount(ids, np.asarray(image, np.float64).ravel(), NUM_IDS)
        count += np.bincount(ids, minlength=NUM_IDS)
    body = np.arange(NUM_IDS) != BACKGROUND
    fallback = total[body].sum() / count[body].sum() if count[body].any() else -1.0
    means = np.divide(total, count, out=np.full(NUM_IDS, fallback), where=count > 0)
    means[BACKGROUND] = means[BACKGROUND] if count[BACKGROUND] else -1.0
    return means.astype(np.float32)


def paint(means: NDArray, anatomy: NDArray) -> NDArray[np.float32]:
    """Each voxel its class's mean."""
    return np.asarray(means, np.float32)[np.asarray(anatomy, np.intp)]


def organ_deviation(x: NDArray, organ: NDArray, width: float) -> NDArray[np.float32]:
    """|smoothed x − median of the organ| inside the organ, 0 outside: intensity alone as an anomaly map."""
    smoothed = smooth_inside(x, organ, width)
    return np.where(organ, np.abs(smoothed - np.median(np.asarray(x)[organ])), 0).astype(np.float32)


def organ_noise(x: NDArray, organ: NDArray, width: float) -> NDArray[np.float32]:
    """The local standard deviation inside the organ (window of σ = width + 1 voxels), 0 outside."""
    mean = smooth_inside(x, organ, width + 1)
    variance = smooth_inside((np.asarray(x, np.float64) - mean) ** 2, organ, width + 1)
    return np.where(organ, np.sqrt(np.maximum(variance, 0)), 0).astype(np.float32)


def segment_by_threshold(hu: NDArray, mask: NDArray, reach: int = 3) -> NDArray[np.bool_]:
    """`threshold-segmenter`: a lesion found again from a seed, by Otsu's threshold near it.

    The seed is the mask's innermost voxel, near is within `reach` voxels of the mask; the answer is the piece on the
    seed's side of the threshold that holds the seed. It is given the neighbourhood, so it is no detector.
    """
    mask = np.asarray(mask, bool)
    near = ndimage.distance_transform_edt(~mask) <= reach
    seed = np.unravel_index(int(np.argmax(ndimage.distance_transform_edt(mask))), mask.shape)
    smoothed = ndimage.gaussian_filter(np.asarray(hu, np.float32), 0.5)
    values = smoothed[near]
    if values.min() == values.max():
        return near
    threshold = filters.threshold_otsu(values)
    side = (smoothed > threshold) if smoothed[seed] > threshold else (smoothed <= threshold)
    pieces, _ = ndimage.label(side & near)
    return pieces == pieces[seed]
