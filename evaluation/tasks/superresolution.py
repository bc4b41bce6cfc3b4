"""Depth super-resolution: a ControlNet on the interpolated image and DiffPIR's data step (SPEC §6.2).

The thick slices of a held-out case are made by a profile: the mean of every `factor` slices, or a Gaussian as a real
scanner's. The data step's operator is chosen on training cases that were made thick in the same way; where that is not
the plain mean, `ours-uncalibrated` takes the plain mean nevertheless. Network and data step see only the thick slices;
anatomy is unknown. Interpolation, linear and by cubic B-splines, stands beside it.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import baselines
from evaluation.metrics import Measurement, image_quality
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.crop import Crop, crop_body
from infra.errors import UserError
from preprocessing.regions import Window
from training.config import Profile
from training.depth_operator import DepthOperator, calibrate, misfit
from training.objectives import upsample_depth
from training.restoration import diffpir, noise_start
from training.sampling import uniform_timesteps

TASK = "superresolution"
CONTROL = "superresolution"


def run(context: TaskContext) -> TaskResult:
    """Held-out crops of every region, averaged along z and brought back.

    Raises:
        UserError: a region has cases but none for test, or the field is no multiple of the factor.
    """
    config = context.config.superresolution
    if config.field_zyx[0] % config.factor:
        raise UserError(
            f"superresolution: field_zyx {config.field_zyx} has no multiple of factor {config.factor} slices"
        )
    subjects = [s for region in context.config.regions for s in context.subjects(region, "test", config.cases)]
    if not subjects:
        return TaskResult(context.unmeasured(TASK, "", "psnr", "dB", "no held-out case"))
    crops = [crop_body(subject, config.field_zyx) for subject in subjects]
    sharp = [crop.normalised() for crop in crops]
    rows, pictures = [], []
    for profile in config.profiles:
        operators = data_operators(context, profile)
        low = thick_slices(context, sharp, profile)
        found = upsampled(context, crops, low, operators)
        setting = f"x{config.factor} {profile}"
        for method, one in operators.items():
            rows += _fit_rows(context, setting, method, one, crops, sharp, low)
        rows += [row for method, xs in found.items() for row in _rows(context, setting, method, crops, sharp, xs)]
        pictures += _pictures(crops, sharp, found, setting)
    if CONTROL not in context.controls:
        rows += context.unmeasured(TASK, "", "psnr", "dB", "no ControlNet for super-resolution was given")
    return TaskResult(rows, pictures)


def thick_slices(context: TaskContext, sharp: Sequence[NDArray], profile: Profile) -> list[NDArray[np.float32]]:
    """The low-resolution images (K, Y, X) on [-1, 1] that a profile makes."""
    operator = DepthOperator.of(profile, context.config.superresolution.factor)
    return to_arrays(operator.apply(to_tensor(sharp)))


def data_operators(context: TaskContext, profile: Profile) -> dict[str, DepthOperator]:
    """The operator of each method's data step: the calibrated one, and the plain mean where that is another."""
    if CONTROL not in context.controls:
        return {}
    operator, block = calibrated(context, profile), DepthOperator.block(context.config.superresolution.factor)
    return {"ours": operator} | ({"ours-uncalibrated": block} if operator != block else {})


def upsampled(
    context: TaskContext,
    crops: Sequence[Crop],
    low: Sequence[NDArray],
    operators: Mapping[str, DepthOperator],
) -> dict[str, list[NDArray]]:
    """What every method makes of thick slices."""
    factor = context.config.superresolution.factor
    return {
        "linear": [baselines.upsample_depth(y, factor, 1) for y in low],
        "bspline": [np.clip(baselines.upsample_depth(y, factor, 3), -1, 1) for y in low],
        "label-mean": [baselines.paint(context.class_means(c.subject.region), c.labels()) for c in crops],
    } | {method: restore(context, crops, low, operator) for method, operator in operators.items()}


def calibrated(context: TaskContext, profile: Profile) -> DepthOperator:
    """The operator that fits training cases made thick by a profile; held-out cases have no say."""
    config = context.config.superresolution
    each = -(-config.calibration_cases // len(context.config.regions))
    subjects = [s for region in context.config.regions for s in context.subjects(region, "train", each)]
    thin = [crop_body(s, config.field_zyx).normalised() for s in subjects]
    thick = DepthOperator.of(profile, config.factor).apply(to_tensor(thin))
    return calibrate(zip(thin, to_arrays(thick), strict=True), config.factor)


def restore(
    context: TaskContext, crops: Sequence[Crop], low: Sequence[NDArray], operator: DepthOperator
) -> list[NDArray[np.float32]]:
    """DiffPIR from a full-noise start at the interpolated image, which is also the ControlNet's control."""
    config, schedule = context.config.superresolution, context.schedule
    y = to_tensor(low)
    up = upsample_depth(y[:, None], config.factor, config.field_zyx[0])[:, 0]
    scenes = [crop.blind_scene(u.numpy()[None]) for crop, u in zip(crops, up, strict=True)]
    generator = context.generator(TASK)
    restored = diffpir(
        context.predictor(scenes, CONTROL),
        noise_start(up, config.start, schedule, generator),
        operator.data_step(y),
        sigma_n=config.sigma_n,
        lam=config.lam,
        timesteps=uniform_timesteps(config.start, config.steps),
        schedule=schedule,
        zeta=config.zeta,
        generator=generator,
        final_data_step=True,
    )
    return to_arrays(torch.clamp(restored, -1, 1))


def _fit_rows(
    context: TaskContext,
    setting: str,
    method: str,
    operator: DepthOperator,
    crops: Sequence[Crop],
    sharp: Sequence[NDArray],
    low: Sequence[NDArray],
) -> list[Row]:
    """`operator_error`: how far the operator of the data step is from what made a held-out case's slices thick."""
    rows = []
    for crop, reference, y in zip(crops, sharp, low, strict=True):
        error = math.sqrt(misfit(operator, reference, y)) * crop.window.hu_per_unit
        fit = Measurement("operator_error", "HU (RMS of thick slices)", error)
        rows += context.rows(TASK, crop.subject, setting, method, [fit])
    return rows


def _rows(
    context: TaskContext,
    setting: str,
    method: str,
    crops: Sequence[Crop],
    sharp: Sequence[NDArray],
    xs: Sequence[NDArray],
) -> list[Row]:
    rows = []
    for crop, reference, x in zip(crops, sharp, xs, strict=True):
        mask = (crop.labels() > 0) & (np.abs(reference) < 1)
        rows += context.rows(
            TASK, crop.subject, setting, method, image_quality(x, reference, mask, crop.window, "image")
        )
    return rows


def _pictures(
    crops: Sequence[Crop], sharp: Sequence[NDArray], found: dict[str, list[NDArray]], setting: str
) -> list[Picture]:
    shown = "ours" if "ours" in found else "linear"
    pictures = []
    for i in _first_of_each_region(crops):
        window, subject = crops[i].window, crops[i].subject
        difference = (found[shown][i] - sharp[i]) * np.float32(window.hu_per_unit)
        panels = [
            Panel("thick slices, linear", window.to_hu(found["linear"][i]), window),
            Panel("super-resolved" if shown == "ours" else "linear", window.to_hu(found[shown][i]), window),
            Panel("reference", window.to_hu(sharp[i]), window),
            Panel("result − reference", difference, Window(window.width_hu / 4, 0)),
        ]
        title = f"{subject.region}, {setting}, {subject.source} {subject.case}"
        pictures.append(Picture(title, panels, z_mm=crops[i].z_mm))
    return pictures


def _first_of_each_region(crops: Sequence[Crop]) -> list[int]:
    regions = [crop.subject.region for crop in crops]
    return [i for i, region in enumerate(regions) if region not in regions[:i]]
