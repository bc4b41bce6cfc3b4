"""Drawing a lesion into one's own CT: RePaint with the lesion ControlNet inside a mask (SPEC §6.4).

Unknown is the lesion and a margin around it. All other voxels come back as they were.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Config
from infra.errors import UserError
from preprocessing.regions import RegionExtent
from training.applications.mask import on_model_grid
from training.applications.region_field import OnEvaluation, RegionField, predictor, unheard
from training.applications.scan import Scan, apply_changes, onto
from training.diffusion import Schedule
from training.inpainting import composite, count_evaluations, repaint, repaint_schedule, unknown_zone
from training.models import Model
from training.objectives import lesion_mask_control
from training.restoration import back_to_hu
from training.sampling import uniform_timesteps


class InpaintConfig(Config):
    """How a lesion is drawn."""

    steps: int = Field(100, ge=1)
    start: int = Field(990, ge=1, description="t of the first step")
    jump_length: int = Field(5, ge=1, description="how many steps the walk goes back up")
    jump_repeats: int = Field(3, ge=1, description="how often each stretch is walked")
    dilation_voxels: int = Field(3, ge=0, description="the unknown zone beyond the mask")
    feather_voxels: int = Field(2, ge=0, description="blend inside the unknown zone")
    margin_voxels: int = Field(8, ge=0, description="what the network sees beyond the zone, and a patch at least")
    guidance: float = Field(1.0, ge=0, description="above 1: closer to what the network is told, at twice the time")
    overlap: float = Field(0.5, ge=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class Inpainted:
    """HU in the scan's own grid, and the voxels (boolean) that may have been changed."""

    hu_zyx: NDArray[np.int16]
    zone_zyx: NDArray[np.bool_]


def inpaint(
    scan: Scan, mask_zyx: NDArray[np.bool_], model: Model, config: InpaintConfig, on_evaluation: OnEvaluation = unheard
) -> Inpainted:
    """The scan with a lesion where the mask (on its own grid) is; anatomy as far as the scan's labels name it.

    Raises:
        UserError: the mask is not seen at the model's spacing, or lies in no region.
    """
    lesion = on_model_grid(scan, mask_zyx)
    if not lesion.any():
        raise UserError(
            f"{scan.case.id}: the mask is smaller than a voxel of the model ({model.recipe.spacing_mm:g} mm)"
        )
    zone = unknown_zone(lesion, config.dilation_voxels)
    field = RegionField.around(scan.stored, _region_of(scan, lesion), model.config.patch, zone, config.margin_voxels)
    x, unknown = field.normalised(), field.cut(zone)
    timesteps = uniform_timesteps(config.start, config.steps)
    visits = repaint_schedule(len(timesteps), config.jump_length, config.jump_repeats)
    control = lesion_mask_control(torch.as_tensor(field.cut(lesion))).numpy()[None]
    anatomy = field.read("anatomy") if scan.stored.record.anatomy != "none" else None
    scene = field.scene(anatomy, control)
    calls, seed = count_evaluations(visits), config.seed
    drawn = repaint(
        predictor(model, scene, config.overlap, calls, on_evaluation, guidance=config.guidance, grid_seed=seed),
        torch.as_tensor(x)[None],
        1 - torch.as_tensor(unknown.astype(np.float32))[None],
        timesteps=timesteps,
        visits=visits,
        schedule=Schedule(model.config.timesteps),
        generator=torch.Generator().manual_seed(config.seed),
    )[0].numpy()
    source = field.read("image")
    hu = composite(source, back_to_hu(source, drawn, field.window), unknown, config.feather_voxels)
    changed = apply_changes(scan, [field.change(x, field.window.normalise(hu))])
    inside = onto(zone.astype(np.uint8), scan.stored.geometry(0), scan.volume.geometry, nearest=True) > 0
    return Inpainted(np.where(inside, changed, scan.volume.image), inside)


def _region_of(scan: Scan, lesion_ZYX: NDArray[np.bool_]) -> RegionExtent:
    """The region that holds most of a lesion.

    Raises:
        UserError: none holds any of it.
    """
    held = [int(lesion_ZYX[extent.z_start : extent.z_stop].sum()) for extent in scan.regions]
    if not any(held):
        names = ", ".join(extent.name for extent in scan.regions)
        raise UserError(f"{scan.case.id}: the mask lies in none of the regions that it shows ({names})")
    return scan.regions[held.index(max(held))]
