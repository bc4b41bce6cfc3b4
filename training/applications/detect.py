"""Anomalies in one's own CT, zero-shot: an organ is drawn again as the model knows it, and compared (SPEC §6.3)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from infra.config import Config
from infra.errors import UserError
from training.applications.mask import on_model_grid
from training.applications.region_field import OnEvaluation, RegionField, predictor, unheard
from training.applications.scan import Scan, onto, shifted
from training.diffusion import Schedule
from training.inpainting import repaint, repaint_schedule
from training.models import Model
from training.sampling import draw_noise, uniform_timesteps
from training.smoothing import smooth_inside


class DetectConfig(Config):
    """How an organ is drawn again."""

    noise_t: int = Field(950, ge=1, description="t to which the organ is noised")
    steps: int = Field(50, ge=1)
    repeats: int = Field(4, ge=1, description="reconstructions that are averaged")
    smooth_voxels: float = Field(2.0, ge=0, description="σ of the Gaussian over the difference")
    percentile: float = Field(99.5, description="of the map inside the organ: the scan's score")
    margin_voxels: int = Field(16, ge=0, description="what the network sees beyond the organ, and a patch at least")
    overlap: float = Field(0.5, ge=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class Detected:
    """The anomaly map in HU (float32) in the scan's own grid, 0 outside of the organ, and the scan's score in HU."""

    map_zyx: NDArray[np.float32]
    score_hu: float


def detect(
    scan: Scan, organ_zyx: NDArray[np.bool_], model: Model, config: DetectConfig, on_evaluation: OnEvaluation = unheard
) -> Detected:
    """How far an organ (a mask on the scan's own grid) is from a healthy one as the model draws it.

    Raises:
        UserError: the mask lies in no region.
    """
    organ = ndimage.binary_fill_holes(on_model_grid(scan, organ_zyx))
    held = [(int(organ[e.z_start : e.z_stop].sum()), e) for e in scan.regions]
    voxels, extent = max(held, key=lambda pair: pair[0])
    if not voxels:
        names = ", ".join(e.name for e in scan.regions)
        raise UserError(f"{scan.case.id}: the organ's mask lies in none of the regions that it shows ({names})")
    field = RegionField.around(scan.stored, extent, model.config.patch, organ, config.margin_voxels)
    x, inside = field.normalised(), field.cut(organ)
    healthy = _drawn_again(field, x, inside, model, config, on_evaluation)
    difference = np.abs(x - healthy) * np.float32(field.window.hu_per_unit)
    smoothed = smooth_inside(difference, inside, config.smooth_voxels).astype(np.float32)
    on_scan = onto(field.spread(smoothed), shifted(scan.stored.geometry(0), extent), scan.volume.geometry)
    score = float(np.percentile(smoothed[inside], config.percentile))
    return Detected(np.where(organ_zyx, on_scan, 0).astype(np.float32), score)


def _drawn_again(
    field: RegionField,
    x_ZYX: NDArray[np.float32],
    organ_ZYX: NDArray[np.bool_],
    model: Model,
    config: DetectConfig,
    on_evaluation: OnEvaluation,
) -> NDArray[np.float32]:
    """The mean of several reconstructions of the organ from partial noise, everything else kept."""
    schedule, x = Schedule(model.config.timesteps), torch.as_tensor(x_ZYX)[None]
    timesteps = uniform_timesteps(config.noise_t, config.steps)
    calls = len(timesteps) * config.repeats
    predict = predictor(model, field.scene(), config.overlap, calls, on_evaluation, grid_seed=config.seed)
    total = torch.zeros_like(x)
    for repeat in range(config.repeats):
        generator = torch.Generator().manual_seed(config.seed + repeat)
        total += repaint(
            predict,
            x,
            1 - torch.as_tensor(organ_ZYX.astype(np.float32))[None],
            timesteps=timesteps,
            visits=repaint_schedule(len(timesteps), len(timesteps), 1),
            schedule=schedule,
            generator=generator,
            start_BZYX=schedule.add_noise(x, draw_noise(x, generator), config.noise_t),
        )
    return (total / config.repeats)[0].numpy()
