"""Do drawn lesions help to find real ones? Real and drawn training cases against real ones alone.

Three segmenters begin with the same weights and take equally many steps: `real` on real lesions alone, `constant-hu`
and `ours` with lesions in healthy cases besides: the masks of other patients' lesions, in the same organ, filled with a
constant or by inpainting. They are judged by the Dice of real held-out lesions. Test patients teach nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.config import AugmentationConfig, LesionConfig
from evaluation.metrics import Measurement, dice
from evaluation.tasks.context import TaskContext
from evaluation.tasks.crop import Subject, centre_of, crop_around
from evaluation.tasks.lesion import LesionSample, lesion_sample
from preprocessing.anatomy import BACKGROUND
from training.config import SegmenterConfig
from training.segmentation import TrainedSegmenter
from training.segmenter import SegmenterNetwork, lesion_loss

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]
CLIP_NORM = 1.0


def real_lesions(context: TaskContext, config: LesionConfig, count: int) -> list[LesionSample]:
    """The largest lesion of so many training cases, regions one after the other."""
    subjects = [s for region in context.config.regions for s in context.subjects(region, "train")]
    found = (lesion_sample(s, config) for s in subjects if s.stored.record.lesion)
    return [sample for sample in found if sample is not None][:count]


def transplanted(
    context: TaskContext, donors: Sequence[LesionSample], config: LesionConfig, count: int
) -> list[LesionSample]:
    """Healthy training cases, each with the mask of another patient's lesion at a seeded place of the same organ."""
    found: list[LesionSample] = []
    for region in context.config.regions:
        own = [donor for donor in donors if donor.crop.subject.region == region]
        hosts = [s for s in context.subjects(region, "train") if not s.stored.record.lesion]
        for turn, host in enumerate(hosts if own else ()):
            seed = context.seed_for("transplant", region, host.source, host.case)
            sample = _transplant(own[turn % len(own)], host, config, seed)
            found += [] if sample is None else [sample]
    return found[:count]


def _transplant(donor: LesionSample, host: Subject, config: LesionConfig, seed: int) -> LesionSample | None:
    """None where the host does not show the organ, or too little of the lesion falls into its body."""
    ids, counts = np.unique(donor.anatomy[donor.lesion], return_counts=True)
    places = np.argwhere(host.region_box("anatomy") == ids[counts.argmax()])
    if not len(places) or ids[counts.argmax()] == BACKGROUND:
        return None
    centre = places[np.random.default_rng(seed).integers(len(places))]
    crop = crop_around(host, [float(c) for c in centre], config.field_zyx)
    offset = np.round(centre - np.asarray(crop.start_zyx) - centre_of(donor.lesion))
    anatomy = crop.labels()
    lesion = (ndimage.shift(donor.lesion.astype(np.uint8), offset, order=0) > 0) & (anatomy > BACKGROUND)
    if lesion.sum() < config.min_voxels:
        return None
    return LesionSample(crop, crop.hu(), crop.normalised(), anatomy, lesion)


def trained_dice(
    context: TaskContext,
    config: AugmentationConfig,
    held_out: Sequence[LesionSample],
    real: Sequence[LesionSample],
    hosts: Sequence[LesionSample],
    drawn: Mapping[str, Sequence[NDArray]],
) -> dict[str, list[Measurement]]:
    """By method, Dice of each held-out lesion: `real` lesions alone, and with hosts whose images in HU are `drawn`."""
    segmenter = context.config.segmenter or SegmenterConfig()
    own: list[Pair] = [(s.x, s.lesion) for s in real]
    sets = {"real": own}
    for method, images in drawn.items():
        filled = zip(hosts, images, strict=True)
        sets[method] = own + [(s.crop.window.normalise(hu), s.lesion) for s, hu in filled]
    found = {}
    for method, pairs in sets.items():
        network = fit(segmenter, pairs, config.iterations, context.seed_for("lesion-training"), context.device)
        trained = TrainedSegmenter(network, "")
        unit = f"1 (trained on {len(own)} real and {len(pairs) - len(own)} drawn)"
        scores = [dice(trained.segment(s.x).lesion, s.lesion) for s in held_out]
        found[method] = [Measurement("dice_trained", unit, score) for score in scores]
    return found


def fit(
    config: SegmenterConfig, pairs: Sequence[Pair], iterations: int, seed: int, device: str = "cpu"
) -> SegmenterNetwork:
    """A segmenter of lesions alone, from weights that the seed decides; a patch of one pair a step, in fp32.

    Patches lie anywhere in a crop and hold noise as those of the sweep's segmenter do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmenterNetwork(config).to(device)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.train.learning_rate)
    for _ in range(iterations):
        x, mask = _patch(*pairs[int(rng.integers(len(pairs)))], config.patch, rng)
        noisy = x + config.noise * rng.random() * rng.standard_normal(x.shape, np.float32)
        logits = network(torch.as_tensor(noisy.astype(np.float32), device=device)[None, None])
        lesion_loss(logits[0, -1], torch.as_tensor(mask, device=device).float()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return network.eval().requires_grad_(False)


def _patch(x: NDArray[np.float32], mask: NDArray[np.bool_], edge: int, rng: np.random.Generator) -> Pair:
    """A cube at a place that the generator chooses; air where the crop is smaller."""
    around = [(0, max(0, edge - n)) for n in x.shape]
    x, mask = np.pad(x, around, constant_values=-1), np.pad(mask, around)
    start = [int(rng.integers(n - edge + 1)) for n in x.shape]
    box = tuple(slice(first, first + edge) for first in start)
    return x[box], mask[box]
