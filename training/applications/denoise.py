"""Denoising one's own CT, zero-shot: posterior mean, DiffPIR or a posterior sample of every region (SPEC §6.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Config
from infra.errors import UserError
from preprocessing.case import RegionName
from training.applications.region_field import OnEvaluation, RegionField, predictor, unheard
from training.applications.scan import Scan, apply_changes
from training.diffusion import Schedule
from training.models import Model
from training.noise_level import estimate_sigma
from training.restoration import consistent_start, diffpir, identity_step, posterior_mean
from training.sampling import Predict, ancestral, uniform_timesteps

LEAST_SIGMA = 1e-3
Estimate = Literal["mean", "restore", "sample"]


class DenoiseConfig(Config):
    """How a CT is denoised."""

    estimate: Estimate = Field(
        "mean", description="mean: one evaluation, least squared error; restore: DiffPIR; sample: one draw"
    )
    sigma_hu: float | None = Field(None, gt=0, description="the noise's standard deviation in HU; none = estimated")
    steps: int = Field(20, ge=1, description="of restore and sample")
    lam: float = Field(10.0, gt=0, description="λ of restore")
    zeta: float = Field(0.0, ge=0, le=1, description="ζ of restore")
    overlap: float = Field(0.5, ge=0, lt=1, description="of sliding windows")
    seed: int = 0


@dataclass(frozen=True)
class Denoised:
    """HU in the scan's own grid, and the noise level of every region in HU, given or estimated."""

    hu_zyx: NDArray[np.int16]
    sigma_hu: Mapping[RegionName, float]


def denoise(scan: Scan, model: Model, config: DenoiseConfig, on_evaluation: OnEvaluation = unheard) -> Denoised:
    """The scan without noise, as the model knows CT; anatomy is unknown to it.

    Raises:
        UserError: the scan is too clean or too noisy for the model's noise levels.
    """
    schedule = Schedule(model.config.timesteps)
    changes, sigmas = [], {}
    for extent in scan.regions:
        field = RegionField.of(scan.stored, extent, model.config.patch)
        x = field.normalised()
        unit = field.window.hu_per_unit
        sigma = config.sigma_hu / unit if config.sigma_hu else estimate_sigma(x, field.body() & (np.abs(x) < 1))
        if not LEAST_SIGMA <= sigma <= float(schedule.sigma_bar(model.config.timesteps // 2)):
            raise UserError(
                f"{scan.case.id}: noise of {sigma * unit:.2f} HU in the {extent.name} is nothing to be removed; give "
                "the standard deviation in HU with --sigma if it is known"
            )
        sigmas[extent.name] = sigma * unit
        calls = {"mean": 1, "restore": config.steps, "sample": config.steps}[config.estimate]
        moving = config.seed if calls > 1 else None
        predict = predictor(model, field.scene(), config.overlap, calls, on_evaluation, grid_seed=moving)
        changes.append(field.change(x, estimate_clean(predict, x, sigma, config, schedule)))
    return Denoised(apply_changes(scan, changes), sigmas)


def estimate_clean(
    predict: Predict, x_ZYX: NDArray[np.float32], sigma: float, config: DenoiseConfig, schedule: Schedule
) -> NDArray[np.float32]:
    """The clean field on [-1, 1] from a noisy one of known level."""
    y = torch.as_tensor(x_ZYX)[None]
    generator = torch.Generator().manual_seed(config.seed)
    start = schedule.nearest_t(sigma)
    timesteps: Sequence[int] = uniform_timesteps(start, config.steps)
    if config.estimate == "mean":
        return posterior_mean(predict, y, sigma, schedule)[0].numpy()
    state = consistent_start(y, sigma, start, schedule, generator)
    if config.estimate == "sample":
        return ancestral(predict, state, timesteps, schedule, generator=generator)[0].numpy()
    return diffpir(
        predict,
        state,
        identity_step(y),
        sigma_n=sigma,
        lam=config.lam,
        timesteps=timesteps,
        schedule=schedule,
        zeta=config.zeta,
        generator=generator,
    )[0].numpy()
