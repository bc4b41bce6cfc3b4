"""What lesion generation and inpainting share: the held-out lesions, the paste baseline, and how a lesion is judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.baselines import segment_by_threshold
from evaluation.config import LesionConfig, TaskName
from evaluation.metrics import Measurement, contrast_hu, dice, distance_hu, histogram_distance_hu, missing, ring
from evaluation.segmenters import LakeSegmenter, lesion_dice
from evaluation.tasks.context import Panel, Picture, Row, TaskContext
from evaluation.tasks.crop import Crop, Subject, centre_of, crop_around
from preprocessing.case import RegionName
from preprocessing.regions import REGIONS
from training.objectives import lesion_mask_control

CONTROL = "lesion"
RANKS = (np.arange(1000) + 0.5) / 1000  # of the values that stand for a training case


@dataclass(frozen=True)
class LesionSample:
    """One crop around a held-out lesion: HU and [-1, 1], anatomy (lesion voxels keep their organ), lesion mask."""

    crop: Crop
    hu: NDArray[np.float32]
    x: NDArray[np.float32]
    anatomy: NDArray[np.uint8]
    lesion: NDArray[np.bool_]

    @property
    def around(self) -> NDArray[np.bool_]:
        """The shell around the lesion, within the body."""
        return ring(self.lesion, self.anatomy > 0)


@dataclass(frozen=True)
class TrainingLesions:
    """HU inside a region's training lesions, clipped at the window; each case counts alike, whatever its size.

    The mean of the cases' means, and 1,000 values of each case in even steps of rank; NaN and empty without a lesion.
    """

    mean_hu: float
    hu: NDArray[np.float32]


NO_LESIONS = TrainingLesions(math.nan, np.zeros(0, np.float32))


def held_out_lesions(context: TaskContext, config: LesionConfig) -> list[LesionSample]:
    """The largest whole lesion of each held-out case, regions taking turns, up to the config's number."""
    found: dict[RegionName, list[LesionSample]] = {}
    for region in REGIONS:
        if region in context.config.regions:
            subjects = (s for s in context.subjects(region, "test") if s.stored.record.lesion)
            samples = (lesion_sample(subject, config) for subject in subjects)
            found[region] = [sample for sample in samples if sample is not None]
    turns = [s[i] for i in range(max(map(len, found.values()), default=0)) for s in found.values() if i < len(s)]
    return turns[: config.cases]


def lesion_sample(subject: Subject, config: LesionConfig) -> LesionSample | None:
    """The crop around the region's largest whole lesion; None where there is none of the least size.

    A lesion that the region's first or last slice cuts belongs to the neighbouring region.
    """
    pieces, _ = ndimage.label(subject.region_box("lesion") > 0)
    sizes = np.bincount(pieces.ravel())
    sizes[np.unique(pieces[[0, -1]])] = 0
    sizes[0] = 0
    if sizes.max() < config.min_voxels:
        return None
    crop = crop_around(subject, centre_of(pieces == int(sizes.argmax())), config.field_zyx)
    lesion = crop.labels("lesion") > 0
    return LesionSample(crop, crop.hu(), crop.normalised(), crop.labels(), lesion)


def training_lesions(context: TaskContext) -> dict[RegionName, TrainingLesions]:
    """The lesions of training cases by region, up to `class_mean_cases` cases each."""
    return {region: _training_lesions(context, region) for region in context.config.regions}


def _training_lesions(context: TaskContext, region: RegionName) -> TrainingLesions:
    subjects = [s for s in context.subjects(region, "train") if s.stored.record.lesion]
    means, values = [], []
    for subject in subjects[: context.config.class_mean_cases]:
        mask = subject.region_box("lesion") > 0
        if mask.any():
            window = subject.window
            hu = np.clip(subject.region_box("image")[mask], window.low_hu, window.high_hu)
            means.append(float(hu.mean()))
            values.append(by_rank(hu))
    return TrainingLesions(float(np.mean(means)), np.concatenate(values)) if means else NO_LESIONS


def by_rank(hu: NDArray) -> NDArray[np.float32]:
    """1,000 of a lesion's values in even steps of rank, whatever its size."""
    return np.quantile(hu, RANKS, method="inverted_cdf").astype(np.float32)


def paste(sample: LesionSample, value_hu: float) -> NDArray[np.float32]:
    """`constant-hu`: the held-out image with one value in the lesion; the shell's mean where the value is unknown."""
    value = value_hu if math.isfinite(value_hu) else float(sample.hu[sample.around].mean())
    return np.where(sample.lesion, np.float32(value), sample.hu)


def yardsticks(
    samples: Sequence[LesionSample], training: Mapping[RegionName, TrainingLesions]
) -> dict[str, list[NDArray[np.float32]]]:
    """What every lesion task is compared with: the real image, the ceiling, and a pasted constant."""
    pasted = [paste(s, training[s.crop.subject.region].mean_hu) for s in samples]
    return {"real": [s.hu for s in samples], "constant-hu": pasted}


def lesion_metrics(
    hu: NDArray,
    sample: LesionSample,
    training: Mapping[RegionName, TrainingLesions],
    segmenter: LakeSegmenter | None = None,
) -> list[Measurement]:
    """How a drawn lesion compares with the real one at the same place and with those of training cases.

    All within the window's HU. `contrast` is lesion minus shell, `contrast_error` its distance from the real image's;
    `histogram_distance` is the Wasserstein distance of HU inside the lesion, `hu_histogram_distance` that from training
    lesions of the same region; `dice[threshold-segmenter]` of the mask and what is found again near it;
    `dice_lesion[segmenter …]` of the mask and what a trained segmenter finds in the whole crop.
    """
    window, region = sample.crop.window, sample.crop.subject.region
    shown, real = (np.clip(v, window.low_hu, window.high_hu) for v in (hu, sample.hu))
    typical = _training_distance(shown[sample.lesion], training[region].hu, region)
    contrast, true = (contrast_hu(v, sample.lesion, sample.around) for v in (shown, real))
    found = segment_by_threshold(shown, sample.lesion)
    seen = [lesion_dice(segmenter, window.normalise(shown), sample.lesion)] if segmenter else []
    if math.isnan(contrast):
        return [missing("contrast", "HU", "no body voxel lies around the lesion"), typical, *seen]
    return [
        Measurement("contrast", "HU", contrast),
        Measurement("contrast_error", "HU", abs(contrast - true)),
        Measurement("histogram_distance", "HU", histogram_distance_hu(shown, real, sample.lesion)),
        Measurement("dice[threshold-segmenter]", "1", dice(found, sample.lesion)),
        typical,
        *seen,
    ]


def pooled_distances(
    context: TaskContext,
    task: TaskName,
    setting: str,
    method: str,
    samples: Sequence[LesionSample],
    images: Sequence[NDArray],
    training: Mapping[RegionName, TrainingLesions],
) -> list[Row]:
    """`hu_histogram_distance_pooled`: a region's drawn lesions taken together, each counting alike, against training.

    One lesion alone lies far from a population for being one, and a constant may lie nearer; a population of real ones
    does not.
    """
    rows = []
    for region in dict.fromkeys(s.crop.subject.region for s in samples):
        drawn = [(s, hu) for s, hu in zip(samples, images, strict=True) if s.crop.subject.region == region]
        values = [by_rank(np.clip(hu[s.lesion], s.crop.window.low_hu, s.crop.window.high_hu)) for s, hu in drawn]
        measured = _training_distance(np.concatenate(values), training[region].hu, region)
        pooled = measured._replace(metric=f"{measured.metric}_pooled")
        rows += context.set_rows(task, region, [s.crop.subject for s, _ in drawn], setting, method, [pooled])
    return rows


def _training_distance(hu: NDArray, training_hu: NDArray, region: RegionName) -> Measurement:
    metric, unit = "hu_histogram_distance", "HU (against training lesions)"
    if not len(training_hu):
        return missing(metric, unit, f"no training case of region {region!r} has a lesion")
    return Measurement(metric, unit, distance_hu(hu, training_hu))


def lesion_picture(sample: LesionSample, shown: Panel, difference: Panel) -> Picture:
    """Mask, result, real image and difference, cut through the middle of the lesion."""
    window, subject = sample.crop.window, sample.crop.subject
    mask = Panel("lesion mask", sample.lesion.astype(np.float32))
    z, y, x = (round(c) for c in centre_of(sample.lesion))
    panels = [mask, shown, Panel("real", sample.hu, window), difference]
    return Picture(f"{subject.region}, {subject.source} {subject.case}", panels, (z, y, x), sample.crop.z_mm)


def lesion_controls(samples: Sequence[LesionSample]) -> list[NDArray[np.float32]]:
    """The masks as the ControlNet was trained with them, (1, Z, Y, X): −1 outside, 1 inside."""
    return [lesion_mask_control(torch.from_numpy(s.lesion))[None].numpy() for s in samples]
