"""What lesion generation and inpainting share: the held-out lesions, the paste baseline, and how a lesion is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.baselines import segment_by_threshold
from evaluation.config import LesionConfig
from evaluation.metrics import Measurement, contrast_hu, dice, histogram_distance_hu, missing, ring
from evaluation.tasks.context import Panel, Picture, TaskContext
from evaluation.tasks.crop import Crop, Subject, centre_of, crop_around
from preprocessing.case import RegionName
from preprocessing.regions import REGIONS
from training.objectives import lesion_mask_control

CONTROL = "lesion"


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


def lesion_means_hu(context: TaskContext) -> dict[RegionName, float]:
    """The mean HU of training lesions by region, clipped at the window; NaN where a region has none."""
    return {region: _mean_hu(context, region) for region in context.config.regions}


def _mean_hu(context: TaskContext, region: RegionName) -> float:
    subjects = [s for s in context.subjects(region, "train") if s.stored.record.lesion]
    means = []
    for subject in subjects[: context.config.class_mean_cases]:
        mask = subject.region_box("lesion") > 0
        if mask.any():
            window = subject.window
            means.append(float(np.clip(subject.region_box("image")[mask], window.low_hu, window.high_hu).mean()))
    return float(np.mean(means)) if means else math.nan


def paste(sample: LesionSample, value_hu: float) -> NDArray[np.float32]:
    """`constant-hu`: the held-out image with one value in the lesion; the shell's mean where the value is unknown."""
    value = value_hu if math.isfinite(value_hu) else float(sample.hu[sample.around].mean())
    return np.where(sample.lesion, np.float32(value), sample.hu)


def yardsticks(context: TaskContext, samples: Sequence[LesionSample]) -> dict[str, list[NDArray[np.float32]]]:
    """What every lesion task is compared with: the real image, the ceiling, and a pasted constant."""
    means = lesion_means_hu(context)
    return {"real": [s.hu for s in samples], "constant-hu": [paste(s, means[s.crop.subject.region]) for s in samples]}


def lesion_metrics(hu: NDArray, sample: LesionSample) -> list[Measurement]:
    """How a drawn lesion compares with the real one at the same place, all within the window's HU.

    `contrast` is lesion minus shell, `contrast_error` its distance from the real image's; `histogram_distance` is the
    Wasserstein distance of HU inside the lesion; `dice[threshold-segmenter]` of the mask and what is found again.
    """
    window = sample.crop.window
    shown, real = (np.clip(v, window.low_hu, window.high_hu) for v in (hu, sample.hu))
    contrast, true = (contrast_hu(v, sample.lesion, sample.around) for v in (shown, real))
    found = segment_by_threshold(shown, sample.lesion)
    if math.isnan(contrast):
        return [missing("contrast", "HU", "no body voxel lies around the lesion")]
    return [
        Measurement("contrast", "HU", contrast),
        Measurement("contrast_error", "HU", abs(contrast - true)),
        Measurement("histogram_distance", "HU", histogram_distance_hu(shown, real, sample.lesion)),
        Measurement("dice[threshold-segmenter]", "1", dice(found, sample.lesion)),
    ]


def lesion_picture(sample: LesionSample, shown: Panel, difference: Panel) -> Picture:
    """Mask, result, real image and difference, cut through the middle of the lesion."""
    window, subject = sample.crop.window, sample.crop.subject
    mask = Panel("lesion mask", sample.lesion.astype(np.float32))
    z, y, x = (round(c) for c in centre_of(sample.lesion))
    panels = [mask, shown, Panel("real", sample.hu, window), difference]
    return Picture(f"{subject.region}, {subject.source} {subject.case}", panels, (z, y, x))


def lesion_controls(samples: Sequence[LesionSample]) -> list[NDArray[np.float32]]:
    """The masks as the ControlNet was trained with them, (1, Z, Y, X): −1 outside, 1 inside."""
    return [lesion_mask_control(torch.from_numpy(s.lesion))[None].numpy() for s in samples]
