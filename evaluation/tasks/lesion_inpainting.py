"""Lesion inpainting: RePaint with the lesion ControlNet around a held-out lesion of a real scan (SPEC §6.4).

Unknown is the lesion and a margin; everything else comes back from the source's own HU, bit for bit, and that is
measured. Beside it the base network on the same walk without a ControlNet, a pasted constant and the real image.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.config import AugmentationConfig
from evaluation.metrics import Measurement, missing, seam_ratio
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.lesion import (
    CONTROL,
    LesionSample,
    TrainingLesions,
    held_out_lesions,
    lesion_controls,
    lesion_metrics,
    lesion_picture,
    pooled_distances,
    training_lesions,
    yardsticks,
)
from evaluation.tasks.lesion_training import real_lesions, trained_dice, transplanted
from preprocessing.case import RegionName
from training.inpainting import composite, repaint, repaint_schedule, unknown_zone
from training.restoration import back_to_hu
from training.sampling import uniform_timesteps
from training.sliding_windows import Scene

TASK = "lesion-inpainting"
SETTING = "held-out masks"
AUGMENTED = "training with drawn lesions"


def run(context: TaskContext) -> TaskResult:
    """One inpainted crop per held-out lesion and method.

    Raises:
        UserError: a region has cases but none for test.
    """
    config = context.config.lesion_inpainting
    samples = held_out_lesions(context, config)
    if not samples:
        return TaskResult(context.unmeasured(TASK, "", "contrast_error", "HU", "no held-out case has a lesion mask"))
    zones = [unknown_zone(sample.lesion, config.dilation_voxels) for sample in samples]
    training = training_lesions(context)
    found = yardsticks(samples, training)
    plain = [s.crop.labelled_scene(s.anatomy) for s in samples]
    found["no-controlnet"] = inpaint(context, samples, zones, plain, "")
    rows = []
    if CONTROL in context.controls:
        pairs = zip(samples, lesion_controls(samples), strict=True)
        scenes = [s.crop.labelled_scene(s.anatomy, control) for s, control in pairs]
        found["ours"] = inpaint(context, samples, zones, scenes, CONTROL)
    else:
        rows += context.unmeasured(TASK, "", "contrast_error", "HU", "no ControlNet for lesions was given")
    for method, images in found.items():
        rows += pooled_distances(context, TASK, SETTING, method, samples, images, training)
        for sample, hu, zone in zip(samples, images, zones, strict=True):
            measured = [*lesion_metrics(hu, sample, training, context.segmenter), *zone_metrics(hu, sample, zone)]
            rows += context.rows(TASK, sample.crop.subject, SETTING, method, measured)
    if config.augmentation and CONTROL in context.controls:
        rows += _training_rows(context, config.augmentation, samples, training)
    return TaskResult(rows, [_picture(s, {m: xs[i] for m, xs in found.items()}) for i, s in enumerate(samples)])


def _training_rows(
    context: TaskContext,
    augmentation: AugmentationConfig,
    samples: Sequence[LesionSample],
    training: Mapping[RegionName, TrainingLesions],
) -> list[Row]:
    """What segmenters find in the held-out lesions that learned with and without lesions drawn into healthy cases."""
    config = context.config.lesion_inpainting
    real = real_lesions(context, config, augmentation.cases)
    hosts = transplanted(context, real, config, augmentation.cases)
    if not hosts:
        reason = "no healthy training case shows an organ in which another one has a lesion"
        return context.unmeasured(TASK, "", "dice_trained", "1", reason)
    zones = [unknown_zone(host.lesion, config.dilation_voxels) for host in hosts]
    pairs = zip(hosts, lesion_controls(hosts), strict=True)
    drawn = {
        "constant-hu": yardsticks(hosts, training)["constant-hu"],
        "ours": inpaint(context, hosts, zones, [s.crop.labelled_scene(s.anatomy, c) for s, c in pairs], CONTROL),
    }
    rows = []
    for method, measured in trained_dice(context, augmentation, samples, real, hosts, drawn).items():
        for sample, one in zip(samples, measured, strict=True):
            rows += context.rows(TASK, sample.crop.subject, AUGMENTED, method, [one])
    return rows


def inpaint(
    context: TaskContext,
    samples: Sequence[LesionSample],
    zones: Sequence[NDArray],
    scenes: Sequence[Scene],
    control: str,
) -> list[NDArray[np.float32]]:
    """The zones drawn by RePaint and blended into the source, in HU; every method meets the same noise."""
    config = context.config.lesion_inpainting
    timesteps = uniform_timesteps(config.start, config.steps)
    drawn = repaint(
        context.predictor(scenes, control or None),
        to_tensor([s.x for s in samples]),
        1 - to_tensor(zones),
        timesteps=timesteps,
        visits=repaint_schedule(len(timesteps), config.jump_length, config.jump_repeats),
        schedule=context.schedule,
        generator=context.generator(TASK),
    )
    return [
        composite(s.hu, back_to_hu(s.hu, x, s.crop.window), zone, config.feather_voxels)
        for s, x, zone in zip(samples, to_arrays(drawn), zones, strict=True)
    ]


def zone_metrics(hu: NDArray, sample: LesionSample, zone: NDArray) -> list[Measurement]:
    """The seam around the zone against the real image's own, and the greatest change of a known voxel (0 = exact)."""
    seam = seam_ratio(hu, sample.hu, zone)
    change = float(np.abs(hu - sample.hu)[~zone].max(initial=0))
    known = Measurement("known_change", "HU", change)
    if np.isnan(seam):
        return [known, missing("seam_ratio", "1", "the real image does not change across the zone's border")]
    return [known, Measurement("seam_ratio", "1", seam)]


def _picture(sample: LesionSample, found: dict[str, NDArray]) -> Picture:
    window = sample.crop.window
    shown = "ours" if "ours" in found else "no-controlnet"
    caption = "inpainted" if shown == "ours" else "inpainted without ControlNet"
    difference = Panel("result − real", found[shown] - sample.hu, window.of_differences)
    return lesion_picture(sample, Panel(caption, found[shown], window), difference)
