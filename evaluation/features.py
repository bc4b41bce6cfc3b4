"""Features of volumes and distances between sets of them.

The extractor is random: three strided 3-D convolutions whose weights follow from a fixed seed, named
`random-conv3d-seed0`. It needs no download and is a regression guard, never a claim about quality; its name is part of
every metric's name. Letters: B batch, F features, N samples.
"""

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from scipy.spatial.distance import cdist, pdist
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor, nn
from torch.nn import functional

from evaluation.metrics import Measurement, missing

EXTRACTOR = "random-conv3d-seed0"
CHANNELS = (1, 8, 16, 32)
MIN_FRECHET = 500  # samples below which a Fréchet distance says more of N than of the images


class RandomFeatures(nn.Module):
    """32 features of each octant of a volume on [-1, 1]: means of randomly convolved, rectified values."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = [
            torch.randn((after, before, 3, 3, 3), generator=generator) * math.sqrt(2 / (27 * before))
            for before, after in itertools.pairwise(CHANNELS)
        ]

    @torch.no_grad()
    def forward(self, x_BZYX: Tensor) -> Tensor:
        """Features (8·B, F): eight octants per volume, each one sample."""
        h = x_BZYX[:, None].float()
        for weight in self.weights:
            h = functional.leaky_relu(functional.conv3d(h, weight, stride=2, padding=1), 0.2)
        return functional.adaptive_avg_pool3d(h, 2).movedim(1, -1).flatten(0, 3)


def extract(volumes_BZYX: NDArray) -> NDArray[np.float64]:
    """Features (N, F) of volumes on [-1, 1], by the extractor of this module."""
    return RandomFeatures()(torch.as_tensor(np.asarray(volumes_BZYX, np.float32))).double().numpy()


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


def feature_distances(volumes: NDArray, reference: NDArray) -> list[Measurement]:
    """KID and MMD always, FID from 500 samples on; volumes (B, Z, Y, X) on [-1, 1], octants as samples.

    The larger set is cut to the smaller one's number, the same volumes every time; the unit says how many samples.
    """
    count = min(len(volumes), len(reference))
    a_NF, b_NF = extract(_some(volumes, count)), extract(_some(reference, count))
    unit = f"1 (N = {len(a_NF)})"
    found = [
        Measurement(f"kid[{EXTRACTOR}]", unit, kernel_distance(a_NF, b_NF)),
        Measurement(f"mmd[{EXTRACTOR}]", unit, gaussian_mmd(a_NF, b_NF)),
    ]
    name = f"fid[{EXTRACTOR}]"
    if len(a_NF) < MIN_FRECHET:
        reason = f"{len(a_NF)} samples; below {MIN_FRECHET} read the kernel distance"
        return [*found, missing(name, unit, reason)]
    return [*found, Measurement(name, unit, frechet_distance(a_NF, b_NF))]


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
    return extract(volumes).reshape(len(volumes), -1)
