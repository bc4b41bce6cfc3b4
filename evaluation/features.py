"""Distances between sets of volumes in the features of a network, and the nearest neighbour in another set.

The network's name is part of every metric's name. Letters: B batch, F features, N samples.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel

from evaluation.extractors import Extract, Extractor, extract_random
from evaluation.metrics import Measurement, missing

MIN_FRECHET = 500  # samples below which a Fréchet distance says more of N than of the images


def frechet_distance(a_NF: NDArray, b_NF: NDArray) -> float:
    """‖μ_a − μ_b‖² + tr(C_a + C_b − 2(C_a C_b)^½) of normal fits to two sets (Dowson and Landau 1982)."""
    difference = a_NF.mean(0) - b_NF.mean(0)
    a_FF, b_FF = np.cov(a_NF, rowvar=False), np.cov(b_NF, rowvar=False)
    root = np.asarray(linalg.sqrtm(a_FF @ b_FF)).real
    return float(difference @ difference + np.trace(a_FF) + np.trace(b_FF) - 2 * np.trace(root))


def kernel_distance(a_NF: NDArray, b_NF: NDArray) -> float:
    """The unbiased squared MMD of two sets with the kernel (x·y/F + 1)³ (Bińkowski et al. 2018); may be negative."""

    def kernel(x: NDArray, y: NDArray) -> NDArray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n, m = len(a_NF), len(b_NF)
    within_a, within_b = kernel(a_NF, a_NF), kernel(b_NF, b_NF)
    same = (within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(same - 2 * kernel(a_NF, b_NF).mean())


def gaussian_mmd(a_NF: NDArray, b_NF: NDArray) -> float:
    """The unbiased squared MMD with a Gaussian kernel as wide as the pooled median distance (Gretton et al. 2012)."""
    width = float(np.median(pdist(np.concatenate([a_NF, b_NF]))))
    gamma = 1 / (2 * width**2) if width else 1.0
    n, m = len(a_NF), len(b_NF)
    within = [(rbf_kernel(v, gamma=gamma).sum() - len(v)) / (len(v) * (len(v) - 1)) for v in (a_NF, b_NF)]
    return float(sum(within) - 2 * rbf_kernel(a_NF, b_NF, gamma=gamma).sum() / (n * m))


def feature_distances(
    volumes: NDArray, reference: NDArray, extractor: Extractor, of_real: Extract | None = None
) -> list[Measurement]:
    """KID and MMD always, FID from 500 samples on; volumes (B, Z, Y, X) on [-1, 1].

    `of_real` gives the features of the reference, where they are kept; else the extractor does.

    The larger set is cut to the smaller one's number, the same volumes every time; the unit says how many samples. A
    network that looks at planes has one distance for each, and their mean.
    """
    count = min(len(volumes), len(reference))
    ours, theirs = extractor.extract(_some(volumes, count)), (of_real or extractor.extract)(_some(reference, count))
    by_plane = [distances(ours[p], theirs[p], " ".join(filter(None, (extractor.name, p)))) for p in ours]
    if len(by_plane) == 1:
        return by_plane[0]
    means = [_mean(kind, extractor.name) for kind in zip(*by_plane, strict=True)]
    return [*means, *(one for plane in by_plane for one in plane)]


def distances(a_NF: NDArray, b_NF: NDArray, name: str) -> list[Measurement]:
    """KID, MMD and FID of two sets of equally many features."""
    unit = f"1 (N = {len(a_NF)})"
    found = [Measurement(f"{kind}[{name}]", unit, value) for kind, value in _kernel_distances(a_NF, b_NF).items()]
    if len(a_NF) < MIN_FRECHET:
        reason = f"{len(a_NF)} samples; below {MIN_FRECHET} read the kernel distance"
        return [*found, missing(f"fid[{name}]", unit, reason)]
    return [*found, Measurement(f"fid[{name}]", unit, frechet_distance(a_NF, b_NF))]


def _kernel_distances(a_NF: NDArray, b_NF: NDArray) -> dict[str, float]:
    if len(a_NF) < 2:
        return {"kid": math.nan, "mmd": math.nan}
    return {"kid": kernel_distance(a_NF, b_NF), "mmd": gaussian_mmd(a_NF, b_NF)}


def _mean(of_planes: tuple[Measurement, ...], name: str) -> Measurement:
    first = of_planes[0]
    value = float(np.mean([one.value for one in of_planes]))
    return Measurement(f"{first.metric.partition('[')[0]}[{name}]", first.unit, value, first.reason)


def _some(volumes: NDArray, count: int) -> NDArray:
    chosen = np.random.default_rng(0).permutation(len(volumes))[:count]
    return volumes[np.sort(chosen)]


def nearest(volumes: NDArray, training: NDArray) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each volume (B, Z, Y, X) the index of the nearest training volume and the root mean square between them."""
    flat, others = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (volumes, training))
    distance = cdist(flat, others) / math.sqrt(flat.shape[1])
    return distance.argmin(1), distance.min(1)


def volume_features(volumes: NDArray) -> NDArray[np.float64]:
    """One vector (B, 8·F) per volume: the features of its octants in their order."""
    return extract_random(volumes).reshape(len(volumes), -1)
