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


def feature_distances(volumes: NDArray, reference: NDArray) -> list[Measurement]:
    """KID always, FID from 500 samples on; volumes (B, Z, Y, X) on [-1, 1], octants as samples."""
    a_NF, b_NF = extract(volumes), extract(reference)
    n = min(len(a_NF), len(b_NF))
    kid = Measurement(f"kid[{EXTRACTOR}]", "1", kernel_distance(a_NF, b_NF))
    name = f"fid[{EXTRACTOR}]"
    if n < MIN_FRECHET:
        return [kid, missing(name, "1", f"{n} samples; below {MIN_FRECHET} read the kernel distance")]
    return [kid, Measurement(name, "1", frechet_distance(a_NF, b_NF))]
