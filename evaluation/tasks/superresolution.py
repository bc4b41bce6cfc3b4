"""Depth super-resolution: a ControlNet on the interpolated image and DiffPIR's block-average data step (SPEC §6.2).

The low-resolution image is the mean of every `factor` slices of a held-out case. Network and data step see only that;
anatomy is unknown. Interpolation, linear and by cubic B-splines, stands beside it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import baselines
from evaluation.metrics import image_quality
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.crop import Crop, crop_body
from infra.errors import UserError
from preprocessing.regions import Window
from training.objectives import upsample_depth
from training.restoration import depth_average, depth_average_step, diffpir, noise_start
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
    low = [y.numpy() for y in depth_average(to_tensor(sharp), config.factor)]
    found = {
        "linear": [baselines.upsample_depth(y, config.factor, 1) for y in low],
        "bspline": [np.clip(baselines.upsample_depth(y, config.factor, 3), -1, 1) for y in low],
        "label-mean": [baselines.paint(context.class_means(c.subject.region), c.labels()) for c in crops],
    }
    if CONTROL in context.controls:
        found["ours"] = restore(context, crops, low)
    rows = [row for method, xs in found.items() for row in _rows(context, method, crops, sharp, xs)]
    if CONTROL not in context.controls:
        rows += context.unmeasured(TASK, "", "psnr", "dB", "no ControlNet for super-resolution was given")
    return TaskResult(rows, _pictures(crops, sharp, found))


def restore(context: TaskContext, crops: Sequence[Crop], low: Sequence[NDArray]) -> list[NDArray[np.float32]]:
    """DiffPIR from a full-noise start at the interpolated image, which is also the ControlNet's control."""
    config, schedule = context.config.superresolution, context.schedule
    y = to_tensor(low)
    up = upsample_depth(y[:, None], config.factor, config.field_zyx[0])[:, 0]
    scenes = [crop.blind_scene(u.numpy()[None]) for crop, u in zip(crops, up, strict=True)]
    generator = context.generator(TASK)
    restored = diffpir(
        context.predictor(scenes, CONTROL),
        noise_start(up, config.start, schedule, generator),
        depth_average_step(y, config.factor),
        sigma_n=config.sigma_n,
        lam=config.lam,
        timesteps=uniform_timesteps(config.start, config.steps),
        schedule=schedule,
        zeta=config.zeta,
        generator=generator,
        final_data_step=True,
    )
    return to_arrays(torch.clamp(restored, -1, 1))


def _rows(
    context: TaskContext, method: str, crops: Sequence[Crop], sharp: Sequence[NDArray], xs: Sequence[NDArray]
) -> list[Row]:
    setting = f"x{context.config.superresolution.factor}"
    rows = []
    for crop, reference, x in zip(crops, sharp, xs, strict=True):
        mask = (crop.labels() > 0) & (np.abs(reference) < 1)
        rows += context.rows(
            TASK, crop.subject, setting, method, image_quality(x, reference, mask, crop.window, "image")
        )
    return rows


def _pictures(crops: Sequence[Crop], sharp: Sequence[NDArray], found: dict[str, list[NDArray]]) -> list[Picture]:
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
        pictures.append(Picture(f"{subject.region}, {subject.source} {subject.case}", panels))
    return pictures


def _first_of_each_region(crops: Sequence[Crop]) -> list[int]:
    regions = [crop.subject.region for crop in crops]
    return [i for i, region in enumerate(regions) if region not in regions[:i]]
