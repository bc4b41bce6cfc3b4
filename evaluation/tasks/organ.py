"""Held-out cases that show one organ, and where it is: made in the same way with and without a lesion in it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.config import ANOMALY_REGION
from evaluation.tasks.context import TaskContext
from evaluation.tasks.crop import Crop, Subject, centre_of, crop_around
from preprocessing.anatomy import class_ids

REGION = ANOMALY_REGION
MIN_ORGAN_VOXELS = 200


@dataclass(frozen=True)
class OrganSample:
    """One crop around the organ: the image on [-1, 1], where the organ is, and the lesion inside it (the truth)."""

    crop: Crop
    x: NDArray[np.float32]
    organ: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


def organ_samples(context: TaskContext) -> list[OrganSample]:
    """Every held-out case that shows the organ."""
    if REGION not in context.config.regions:
        return []
    found = [organ_sample(context, subject) for subject in context.subjects(REGION, "test")]
    return [sample for sample in found if sample is not None]


def in_turns(samples: Sequence[OrganSample]) -> list[OrganSample]:
    """Samples with and without a lesion taking turns."""
    sick, well = ([s for s in samples if s.lesion.any() == state] for state in (True, False))
    return [sample for pair in itertools.zip_longest(sick, well) for sample in pair if sample is not None]


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
