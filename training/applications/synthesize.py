"""A CT that nobody has: drawn from an anatomy map, region and position, with a lesion where one is wanted.

The whole map is one field, in overlapping windows and one update a step (SPEC §6.1). With a lesion only the box around
it is drawn (SPEC §6.5).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Config
from preprocessing.geometry import Geometry
from preprocessing.pyramid import resize_cube
from preprocessing.regions import REGIONS, WINDOWS
from training.applications.anatomy_map import AnatomyMap
from training.applications.region_field import OnEvaluation, predictor, unheard
from training.config import SamplerName
from training.diffusion import Schedule
from training.models import Model
from training.objectives import lesion_mask_control
from training.sampling import SAMPLERS, draw_noise, uniform_timesteps
from training.sliding_windows import Scene

AIR_HU = -1000.0


class SynthesizeConfig(Config):
    """How a volume is drawn."""

    sampler: SamplerName = "dpm-solver++"
    steps: int = Field(20, ge=1)
    start: int = Field(990, ge=1, description="t of the first step")
    guidance: float = Field(1.0, ge=0, description="above 1: more like the region and the map than the model draws it")
    margin_voxels: int = Field(8, ge=0, description="what is drawn around a lesion, and a patch at least")
    level: Literal["patch", "image"] = Field(
        "patch", description="image: all of the map at once, stretched to one patch: a preview"
    )
    overlap: float = Field(0.5, ge=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class Synthesized:
    """HU, clipped at the region's window, with its geometry."""

    hu_zyx: NDArray[np.int16]
    geometry: Geometry


def synthesize(
    given: AnatomyMap,
    model: Model,
    config: SynthesizeConfig,
    on_evaluation: OnEvaluation = unheard,
    lesion_zyx: NDArray[np.bool_] | None = None,
) -> Synthesized:
    """A CT of the map; with a lesion (on the map's grid; needs a lesion model) the box around it.

    At the image level, without a lesion, it has patch³ voxels, however large the map is.
    """
    if config.level == "image" and lesion_zyx is None:
        return _preview(given, model, config, on_evaluation)
    window = WINDOWS[given.region]
    padded, before = _at_least(given.ids_ZYX, model.config.patch)
    lesion = None if lesion_zyx is None else _at_least(lesion_zyx, model.config.patch)[0]
    place = _box(padded.shape, lesion, model.config.patch, config.margin_voxels)
    scene = _scene(given, padded, place, lesion)
    x = _drawn(scene, model, config, on_evaluation)
    own = tuple(
        slice(max(p.start, b), min(p.stop, b + n)) for p, b, n in zip(place, before, given.ids_ZYX.shape, strict=True)
    )
    hu = np.rint(window.to_hu(x)).astype(np.int16)
    hu = hu[tuple(slice(o.start - p.start, o.stop - p.start) for o, p in zip(own, place, strict=True))]
    origin = given.geometry.world([o.start - b for o, b in zip(own, before, strict=True)])
    return Synthesized(hu, replace(given.geometry, shape=hu.shape, origin_mm=tuple(origin.tolist())))


def _preview(given: AnatomyMap, model: Model, config: SynthesizeConfig, on_evaluation: OnEvaluation) -> Synthesized:
    """The whole map as one patch, its voxels as much longer as it takes."""
    patch, (depth, height, width) = model.config.patch, given.ids_ZYX.shape
    step = (depth / patch, height / patch, width / patch)
    scene = Scene(
        region=REGIONS.index(given.region),
        anatomy_ZYX=torch.as_tensor(resize_cube(given.ids_ZYX, patch, labels=True)),
        start_zyx=(0.0, 0.0, 0.0),
        step_zyx=step,
        canvas_zyx=(depth, height, width),
    )
    x = _drawn(scene, model, config, on_evaluation)
    spacing = tuple(mm * n for mm, n in zip(given.geometry.spacing_mm, step, strict=True))
    origin = tuple(given.geometry.world([n / 2 - 0.5 for n in step]).tolist())
    hu = np.rint(WINDOWS[given.region].to_hu(x)).astype(np.int16)
    return Synthesized(hu, replace(given.geometry, shape=hu.shape, spacing_mm=spacing, origin_mm=origin))


def _drawn(scene: Scene, model: Model, config: SynthesizeConfig, on_evaluation: OnEvaluation) -> NDArray[np.float32]:
    """The field on [-1, 1], from pure noise."""
    schedule, generator = Schedule(model.config.timesteps), torch.Generator().manual_seed(config.seed)
    timesteps = uniform_timesteps(config.start, config.steps)
    more = {"guidance": config.guidance, "grid_seed": config.seed}
    predict = predictor(model, scene, config.overlap, len(timesteps), on_evaluation, **more)
    noise, draw = draw_noise(torch.zeros(1, *scene.anatomy_ZYX.shape), generator), SAMPLERS[config.sampler]
    return draw(predict, noise, timesteps, schedule, generator=generator)[0].numpy()


def _scene(
    given: AnatomyMap, padded_ZYX: NDArray[np.uint8], place: tuple[slice, ...], lesion_ZYX: NDArray[np.bool_] | None
) -> Scene:
    anatomy, start = torch.as_tensor(padded_ZYX[place]), [float(p.start) for p in place]
    air = WINDOWS[given.region].normalise(np.full(anatomy.shape, AIR_HU))
    depth, height, width = padded_ZYX.shape
    return Scene(
        region=REGIONS.index(given.region),
        anatomy_ZYX=anatomy,
        start_zyx=(start[0], start[1], start[2]),
        step_zyx=(1.0, 1.0, 1.0),
        canvas_zyx=(depth, height, width),
        control_CZYX=None if lesion_ZYX is None else lesion_mask_control(torch.as_tensor(lesion_ZYX[place]))[None],
        body_ZYX=anatomy > 0,
        outside_ZYX=torch.as_tensor(air),
    )


def _at_least(array_ZYX: NDArray, patch: int) -> tuple[NDArray, tuple[int, ...]]:
    """The array with 0 around it where it is smaller than a patch, and how much lies before it."""
    missing = [max(0, patch - n) for n in array_ZYX.shape]
    before = tuple(m // 2 for m in missing)
    return np.pad(array_ZYX, [(b, m - b) for b, m in zip(before, missing, strict=True)]), before


def _box(shape: tuple[int, ...], lesion_ZYX: NDArray[np.bool_] | None, patch: int, margin: int) -> tuple[slice, ...]:
    """What is drawn: all of it, or at least a patch around a lesion."""
    if lesion_ZYX is None:
        return tuple(slice(0, n) for n in shape)
    found = np.argwhere(lesion_ZYX)
    low, high = found.min(0) - margin, found.max(0) + 1 + margin
    size = np.minimum(np.maximum(high - low, patch), shape)
    start = np.clip((low + high - size) // 2, 0, np.asarray(shape) - size)
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
