"""Noisy samples for the denoising task: what is denoised, what it is compared with, and where."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.config import DenoisingConfig
from evaluation.tasks.context import TaskContext
from evaluation.tasks.crop import Crop
from training.noise_level import estimate_sigma

NOISE_FREE = "noise_free"


class Setting(NamedTuple):
    """Either white noise of `sigma` on the stored image, or a noisy companion."""

    name: str
    sigma: float = 0.0
    companion: str = ""


@dataclass(frozen=True)
class NoisySample:
    """One crop to denoise; every array on [-1, 1].

    `noisy` is not clipped where noise was added here. `reference` is the noise-free companion, or else the stored image
    (`against` says which). `mask`: body voxels that saturate neither in the reference nor, for a companion, in the
    noisy image, because a saturated voxel carries no noise. `sigma` is the noise level, known or estimated.
    """

    crop: Crop
    noisy: NDArray[np.float32]
    stored: NDArray[np.float32]
    reference: NDArray[np.float32]
    against: str
    mask: NDArray[np.bool_]
    sigma: float


def settings(config: DenoisingConfig) -> list[Setting]:
    """The settings of a sweep, in order."""
    added = [Setting(f"sigma={sigma:g}", sigma=sigma) for sigma in config.sigmas]
    return [*added, *(Setting(name, companion=name) for name in config.companions)]


def noisy_samples(context: TaskContext, crops: Iterable[Crop], setting: Setting) -> list[NoisySample]:
    """The samples of a setting; crops of cases without the companion are left out."""
    usable = (crop for crop in crops if not setting.companion or crop.subject.has(setting.companion))
    return [_sample(context, crop, setting) for crop in usable]


def _sample(context: TaskContext, crop: Crop, setting: Setting) -> NoisySample:
    stored = crop.normalised()
    against = NOISE_FREE if crop.subject.has(NOISE_FREE) else "image"
    reference = crop.normalised(against)
    mask = (crop.labels() > 0) & (np.abs(reference) < 1)
    if setting.companion:
        noisy = crop.normalised(setting.companion)
        mask &= np.abs(noisy) < 1
        sigma = max(np.nan_to_num(estimate_sigma(noisy, mask)), 1e-3)
    else:
        subject = crop.subject
        z = context.noise(stored.shape, "denoising", setting.name, subject.source, subject.case, subject.region)
        noisy, sigma = stored + np.float32(setting.sigma) * z, setting.sigma
    return NoisySample(crop, noisy, stored, reference, against, mask, sigma)


def topped_up(context: TaskContext, sample: NoisySample, sigma: float) -> NDArray[np.float32]:
    """The sample as the network should meet it: noise of its level also where the window's edge cut it off."""
    subject = sample.crop.subject
    z = context.noise(sample.noisy.shape, "top-up", subject.source, subject.case, subject.region)
    saturated = np.abs(sample.noisy) == 1  # only a clipped image is exactly at the edge
    return np.where(saturated, sample.noisy + np.float32(sigma) * z, sample.noisy)


def reference_noise(sample: NoisySample) -> float:
    """σ of the stored image's own noise inside the mask; NaN without a noise-free companion."""
    if sample.against != NOISE_FREE or not sample.mask.any():
        return float("nan")
    return float(np.std((sample.stored - sample.reference)[sample.mask]))
