"""Thinner slices for one's own CT: the super-resolution ControlNet with DiffPIR's data step along depth (SPEC §6.2).

The scan's slices are taken for weighted means of `factor` thin ones. The network works at the model's spacing in the
plane; what it adds to linear interpolation goes back to the scan's own pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from infra.config import Config
from infra.errors import UserError
from preprocessing.geometry import Geometry
from preprocessing.orient import turn_towards
from preprocessing.regions import REGIONS, WINDOWS, RegionExtent
from preprocessing.resample import is_straight, output_grid, resample_onto
from training.applications.region_field import OnEvaluation, predictor, unheard
from training.applications.scan import Change, Scan, fading, onto, shifted
from training.config import Profile
from training.depth_operator import DepthOperator
from training.diffusion import Schedule
from training.models import Model
from training.objectives import upsample_depth
from training.restoration import diffpir, noise_start
from training.sampling import uniform_timesteps
from training.sliding_windows import Scene, unknown_anatomy

LARGEST_MISFIT = 1.3  # between the thin slices and what the model was trained on


class SuperresolveConfig(Config):
    """How thin slices are drawn."""

    factor: int | None = Field(
        None, ge=2, description="slices for one; none = as many as come nearest to the model's spacing"
    )
    profile: Profile = Field("mean", description="how the thick slices came about: a plain mean, or a Gaussian")
    steps: int = Field(100, ge=1)
    start: int = Field(990, ge=1, description="t of the first step")
    sigma_n: float = Field(0.01, gt=0, description="small: the slices' means are kept almost exactly")
    lam: float = Field(1.0, gt=0, description="λ of DiffPIR")
    zeta: float = Field(0.25, ge=0, le=1, description="ζ of DiffPIR")
    overlap: float = Field(0.5, ge=0, lt=1)
    seed: int = 0


@dataclass(frozen=True)
class Superresolved:
    """HU with `factor` times as many slices on the scan's own pixels, axes along +z, +y, +x, and their geometry."""

    hu_zyx: NDArray[np.int16]
    geometry: Geometry
    factor: int


def superresolve(
    scan: Scan, model: Model, config: SuperresolveConfig, on_evaluation: OnEvaluation = unheard
) -> Superresolved:
    """The scan with thinner slices; anatomy is unknown to the model.

    Raises:
        UserError: the scan is oblique, or its slices over the factor are far from the model's spacing.
    """
    turn = turn_towards(scan.volume.geometry)
    source, own = turn.array(scan.volume.image), turn.geometry(scan.volume.geometry)
    factor = _factor(scan, own, model, config)
    fine = thin_geometry(own, factor)
    linear = _upsampled(source.astype(np.float32), factor)
    total = np.zeros(fine.shape, np.float32)
    changes = list(_changes(scan, own, model, config.replace(factor=factor), on_evaluation))
    thick = _plane_grid(own, model.recipe.spacing_mm)
    for change, weight_Z in zip(changes, fading(changes), strict=True):
        grid = shifted(thin_geometry(thick, factor), change.extent)
        window = WINDOWS[change.extent.name]
        moved = onto((change.hu_ZYX * weight_Z[:, None, None]).astype(np.float32), grid, fine)
        total += np.where((linear > window.low_hu) & (linear < window.high_hu), moved, 0)
    return Superresolved(np.rint(linear + total).clip(-32768, 32767).astype(np.int16), fine, factor)


def thin_geometry(thick: Geometry, factor: int) -> Geometry:
    """The grid of `factor` slices for one: slice i lies at (i + 0.5)/factor − 0.5 of the thick ones."""
    depth, height, width = thick.shape
    origin = tuple(thick.world((0.5 / factor - 0.5, 0, 0)).tolist())
    spacing = (thick.spacing_mm[0] / factor, *thick.spacing_mm[1:])
    return replace(thick, shape=(depth * factor, height, width), spacing_mm=spacing, origin_mm=origin)


def _factor(scan: Scan, own: Geometry, model: Model, config: SuperresolveConfig) -> int:
    if not is_straight(own):
        raise UserError(f"{scan.case.id} is oblique; resample it to straight axes first")
    spacing = model.recipe.spacing_mm
    factor = config.factor or max(2, round(own.spacing_mm[0] / spacing))
    thin = own.spacing_mm[0] / factor
    if not 1 / LARGEST_MISFIT <= thin / spacing <= LARGEST_MISFIT:
        raise UserError(
            f"{scan.case.id}: slices of {own.spacing_mm[0]:.3g} mm in {factor} make {thin:.3g} mm, but the model draws "
            f"at {spacing:g} mm; it takes slices of {2 * spacing:.3g} mm and more"
        )
    return factor


def _plane_grid(own: Geometry, spacing_mm: float) -> Geometry:
    """The scan's slices with pixels of the model's spacing."""
    return output_grid(own, (own.spacing_mm[0], spacing_mm, spacing_mm))


def _changes(
    scan: Scan, own: Geometry, model: Model, config: SuperresolveConfig, on_evaluation: OnEvaluation
) -> Iterator[Change]:
    """Of every region what the model adds to linear interpolation; extents count thin slices."""
    grid, factor = _plane_grid(own, model.recipe.spacing_mm), config.factor
    assert factor is not None
    volume = resample_onto(scan.volume.image, scan.volume.geometry, grid)
    share = scan.stored.geometry(0).spacing_mm[0] / grid.spacing_mm[0]
    for extent in scan.regions:
        first, last = round(extent.z_start * share), min(len(volume), round(extent.z_stop * share))
        window = WINDOWS[extent.name]
        y = window.normalise(volume[first:last])
        up = _upsampled(y, factor)
        x = _drawn(y, up, extent, model, config, on_evaluation)
        difference = np.where(np.abs(up) < 1, np.clip(x, -1, 1) - up, 0) * np.float32(window.hu_per_unit)
        thin = RegionExtent(name=extent.name, z_start=first * factor, z_stop=last * factor)
        yield Change(thin, difference.astype(np.float32))


def _drawn(
    y_KYX: NDArray[np.float32],
    up_ZYX: NDArray[np.float32],
    extent: RegionExtent,
    model: Model,
    config: SuperresolveConfig,
    on_evaluation: OnEvaluation,
) -> NDArray[np.float32]:
    """DiffPIR from a full-noise start at the interpolated slices, which are also the ControlNet's control."""
    patch, factor, schedule = model.config.patch, len(up_ZYX) // len(y_KYX), Schedule(model.config.timesteps)
    least = (-(-patch // factor), patch, patch)
    padding = [(0, max(0, n - m)) for n, m in zip(least, y_KYX.shape, strict=True)]
    y = torch.as_tensor(np.pad(y_KYX, padding, mode="edge"))[None]
    up = upsample_depth(y[:, None], factor, y.shape[1] * factor)[:, 0]
    scene = Scene(
        region=REGIONS.index(extent.name),
        anatomy_ZYX=unknown_anatomy(up.shape[1:]),
        start_zyx=(0.0, 0.0, 0.0),
        step_zyx=(1.0, 1.0, 1.0),
        canvas_zyx=(up.shape[1], up.shape[2], up.shape[3]),
        control_CZYX=up,
    )
    timesteps, generator = uniform_timesteps(config.start, config.steps), torch.Generator().manual_seed(config.seed)
    x = diffpir(
        predictor(model, scene, config.overlap, len(timesteps), on_evaluation, grid_seed=config.seed),
        noise_start(up, config.start, schedule, generator),
        DepthOperator.of(config.profile, factor).data_step(y),
        sigma_n=config.sigma_n,
        lam=config.lam,
        timesteps=timesteps,
        schedule=schedule,
        zeta=config.zeta,
        generator=generator,
        final_data_step=True,
    )[0].numpy()
    return x[tuple(slice(0, n) for n in up_ZYX.shape)]


def _upsampled(thick_KYX: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """`factor` times as many slices, linearly interpolated."""
    low = torch.as_tensor(np.ascontiguousarray(thick_KYX))[None, None]
    return upsample_depth(low, factor, len(thick_KYX) * factor)[0, 0].numpy()
