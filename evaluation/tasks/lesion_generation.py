"""Lesion generation: a whole crop drawn from noise, given anatomy, position and, through the ControlNet, a lesion mask.

Beside it the base network without a ControlNet, a constant pasted into the real image (which wins Dice and fails
realism) and the real image itself, the ceiling (SPEC §6.5).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.tasks.context import Panel, Picture, TaskContext, TaskResult, to_arrays
from evaluation.tasks.lesion import (
    CONTROL,
    LesionSample,
    held_out_lesions,
    lesion_controls,
    lesion_metrics,
    lesion_picture,
    pooled_distances,
    training_lesions,
    yardsticks,
)
from training.sampling import ddim, draw_noise, uniform_timesteps
from training.sliding_windows import Scene

TASK = "lesion-generation"
SETTING = "held-out masks"


def run(context: TaskContext) -> TaskResult:
    """One drawn crop per held-out lesion and method.

    Raises:
        UserError: a region has cases but none for test.
    """
    samples = held_out_lesions(context, context.config.lesion_generation)
    if not samples:
        return TaskResult(context.unmeasured(TASK, "", "contrast_error", "HU", "no held-out case has a lesion mask"))
    training = training_lesions(context)
    found = yardsticks(samples, training)
    plain = [s.crop.labelled_scene(s.anatomy) for s in samples]
    found["no-controlnet"] = generate(context, samples, plain, "")
    rows = []
    if CONTROL in context.controls:
        pairs = zip(samples, lesion_controls(samples), strict=True)
        found["ours"] = generate(context, samples, [s.crop.labelled_scene(s.anatomy, c) for s, c in pairs], CONTROL)
    else:
        rows += context.unmeasured(TASK, "", "contrast_error", "HU", "no ControlNet for lesions was given")
    for method, images in found.items():
        rows += pooled_distances(context, TASK, SETTING, method, samples, images, training)
        for sample, hu in zip(samples, images, strict=True):
            measured = lesion_metrics(hu, sample, training, context.segmenter)
            rows += context.rows(TASK, sample.crop.subject, SETTING, method, measured)
    return TaskResult(rows, [_picture(s, {m: xs[i] for m, xs in found.items()}) for i, s in enumerate(samples)])


def generate(
    context: TaskContext, samples: Sequence[LesionSample], scenes: Sequence[Scene], control: str
) -> list[NDArray[np.float32]]:
    """Crops drawn by DDIM from pure noise, in HU; every method starts from the same noise."""
    config = context.config.lesion_generation
    noise = draw_noise(torch.zeros(len(samples), *config.field_zyx), context.generator(TASK))
    timesteps = uniform_timesteps(config.start, config.steps)
    drawn = ddim(context.predictor(scenes, control or None), noise, timesteps, context.schedule)
    return [s.crop.window.to_hu(x) for s, x in zip(samples, to_arrays(drawn), strict=True)]


def _picture(sample: LesionSample, found: dict[str, NDArray]) -> Picture:
    window = sample.crop.window
    shown = "ours" if "ours" in found else "no-controlnet"
    caption = "drawn with the mask" if shown == "ours" else "drawn without ControlNet"
    difference = Panel("drawn − real", found[shown] - window.to_hu(sample.x), window.of_differences)
    return lesion_picture(sample, Panel(caption, found[shown], window), difference)
