"""Anomaly detection, zero-shot: one organ is noised to an intermediate t and drawn again as the model knows it.

The rest of the volume is kept at every step; the difference is the anomaly map (SPEC §6.3).
The network is told region and position only, anatomy is unknown. The organ's mask says where to look: organ and lesion
with holes filled, made in the same way with and without a lesion. Maps are 0 outside it.

The map is the absolute difference. A model that draws the whole organ too dark or too bright (an unlearnt contrast
phase, say) finds lesions of that same side less anomalous than healthy tissue, below chance; `ours-centred` is the
difference from its own median in the organ, in which such an offset cancels.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from evaluation import baselines
from evaluation.metrics import Measurement, auroc, average_precision
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.crop import Crop, Subject, centre_of, crop_around
from preprocessing.anatomy import class_ids
from training.inpainting import repaint, repaint_schedule
from training.sampling import draw_noise, uniform_timesteps
from training.smoothing import smooth_inside

TASK = "anomaly"
REGION = "abdomen"
MIN_ORGAN_VOXELS = 200


@dataclass(frozen=True)
class OrganSample:
    """One crop around the organ: the image on [-1, 1], where the organ is, and the lesion inside it (the truth)."""

    crop: Crop
    x: NDArray[np.float32]
    organ: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


def run(context: TaskContext) -> TaskResult:
    """Anomaly maps of held-out cases, with and without a lesion in the organ.

    Raises:
        UserError: the region has cases but none for test.
    """
    config = context.config.anomaly
    samples = choose(context)
    if not samples:
        reason = f"no held-out case shows the {config.organ} with its label"
        return TaskResult(context.unmeasured(TASK, REGION, "auroc_px_organ", "1", reason))
    healthy = reconstruct(context, samples)
    maps = anomaly_maps(context, samples, healthy)
    setting = f"t={config.noise_t}"
    rows = [row for method, found in maps.items() for row in _rows(context, setting, method, samples, found)]
    return TaskResult(rows, [_picture(samples, healthy, maps["ours"], context)])


def choose(context: TaskContext) -> list[OrganSample]:
    """Held-out cases that show the organ, with and without a lesion in it taking turns, up to the config's number."""
    if REGION not in context.config.regions:
        return []
    found = [organ_sample(context, subject) for subject in context.subjects(REGION, "test")]
    shown = [sample for sample in found if sample is not None]
    sick, well = ([s for s in shown if s.lesion.any() == state] for state in (True, False))
    turns = [sample for pair in itertools.zip_longest(sick, well) for sample in pair if sample is not None]
    return turns[: context.config.anomaly.cases]


def organ_sample(context: TaskContext, subject: Subject) -> OrganSample | None:
    """The crop around a case's organ; None where the organ is not labelled or barely in the crop."""
    config = context.config.anomaly
    region = organ_zone(subject.region_box("anatomy"), _lesion(subject), config.organ)
    if not region.any():
        return None
    crop = crop_around(subject, centre_of(region), config.field_zyx)
    lesion = crop.labels("lesion") > 0
    organ = organ_zone(crop.labels(), lesion, config.organ)
    if organ.sum() < MIN_ORGAN_VOXELS:
        return None
    return OrganSample(crop, crop.normalised(), organ, lesion & organ)


def organ_zone(anatomy: NDArray, lesion: NDArray, organ: str) -> NDArray[np.bool_]:
    """Organ and the lesions that touch it, holes filled: a label that stops at a tumour must not give it away."""
    own = anatomy == class_ids()[organ]
    pieces, _ = ndimage.label(lesion > 0)
    touching = np.unique(pieces[ndimage.binary_dilation(own)])
    return ndimage.binary_fill_holes(own | np.isin(pieces, touching[touching > 0]))


def _lesion(subject: Subject) -> NDArray:
    if subject.stored.record.lesion:
        return subject.region_box("lesion")
    return np.zeros(subject.shape_zyx, np.uint8)


def reconstruct(context: TaskContext, samples: Sequence[OrganSample]) -> list[NDArray[np.float32]]:
    """The organ drawn again from its noised image, everything else kept; the mean of the config's repeats."""
    config, schedule = context.config.anomaly, context.schedule
    x = to_tensor([s.x for s in samples])
    known = 1 - to_tensor([s.organ for s in samples])
    predict = context.predictor([s.crop.blind_scene() for s in samples])
    timesteps = uniform_timesteps(config.noise_t, config.steps)
    visits = repaint_schedule(len(timesteps), len(timesteps), 1)
    total = torch.zeros_like(x)
    for repeat in range(config.repeats):
        generator = context.generator(TASK, repeat)
        start = schedule.add_noise(x, draw_noise(x, generator), config.noise_t)
        total += repaint(
            predict,
            x,
            known,
            timesteps=timesteps,
            visits=visits,
            schedule=schedule,
            generator=generator,
            start_BZYX=start,
        )
    return to_arrays(total / config.repeats)


def anomaly_maps(
    context: TaskContext, samples: Sequence[OrganSample], healthy: Sequence[NDArray]
) -> dict[str, list[NDArray]]:
    """One map per sample and method, 0 outside the organ. `label-mean` compares with the organ's mean in training."""
    width = context.config.anomaly.smooth_voxels
    means = context.class_means(REGION)

    def difference(sample: OrganSample, expected: NDArray, centred: bool = False) -> NDArray:
        change = sample.x - expected
        offset = np.median(change[sample.organ]) if centred else 0
        return smooth_inside(np.abs(change - offset), sample.organ, width)

    def from_mean(sample: OrganSample) -> NDArray:
        mean = means[class_ids()[context.config.anomaly.organ]]
        return np.abs(smooth_inside(sample.x - mean, sample.organ, width))

    return {
        "ours": [difference(s, h) for s, h in zip(samples, healthy, strict=True)],
        "ours-centred": [difference(s, h, centred=True) for s, h in zip(samples, healthy, strict=True)],
        "organ-median": [baselines.organ_deviation(s.x, s.organ, width) for s in samples],
        "organ-noise": [baselines.organ_noise(s.x, s.organ, width) for s in samples],
        "organ-mask": [s.organ.astype(np.float32) for s in samples],
        "label-mean": [from_mean(s) for s in samples],
    }


def _rows(
    context: TaskContext, setting: str, method: str, samples: Sequence[OrganSample], maps: Sequence[NDArray]
) -> list[Row]:
    rows = []
    for sample, values in zip(samples, maps, strict=True):
        if sample.lesion.any():
            rows += context.rows(TASK, sample.crop.subject, setting, method, pixel_metrics(values, sample))
    scores = [image_score(method, v, s, context.config.anomaly.percentile) for v, s in zip(maps, samples, strict=True)]
    image = auroc(scores, [bool(s.lesion.any()) for s in samples], "auroc_image")
    return rows + context.set_rows(TASK, REGION, [s.crop.subject for s in samples], setting, method, [image])


def pixel_metrics(values: NDArray, sample: OrganSample) -> list[Measurement]:
    """AUROC on all voxels (which a bare organ mask wins), AUROC and average precision within the organ."""
    inside, truth = values[sample.organ], sample.lesion[sample.organ]
    share = Measurement("lesion_share_organ", "1", float(truth.mean()))
    return [
        auroc(inside, truth, "auroc_px_organ"),
        average_precision(inside, truth, "ap_px_organ"),
        auroc(values.ravel(), sample.lesion.ravel(), "auroc_px_all"),
        share,
    ]


def image_score(method: str, values: NDArray, sample: OrganSample, percentile: float) -> float:
    """A high percentile of the map within the organ; for the bare mask the organ's volume."""
    return (
        float(sample.organ.sum()) if method == "organ-mask" else float(np.percentile(values[sample.organ], percentile))
    )


def _picture(
    samples: Sequence[OrganSample], healthy: Sequence[NDArray], maps: Sequence[NDArray], context: TaskContext
) -> Picture:
    i = next((k for k, s in enumerate(samples) if s.lesion.any()), 0)
    sample, window = samples[i], samples[i].crop.window
    shown = sample.lesion if sample.lesion.any() else sample.organ
    z, y, x = (round(c) for c in centre_of(shown))
    panels = [
        Panel("image", sample.crop.hu(), window),
        Panel("organ drawn again", window.to_hu(healthy[i]), window),
        Panel("anomaly map", maps[i].astype(np.float32)),
        Panel("lesion (truth)", sample.lesion.astype(np.float32)),
        Panel("image − drawn", (sample.x - healthy[i]) * np.float32(window.hu_per_unit), window.of_differences),
    ]
    subject = sample.crop.subject
    return Picture(f"{context.config.anomaly.organ}, {subject.source} {subject.case}", panels, (z, y, x))
