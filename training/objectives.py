"""Objectives: what a network learns. Each makes its own batches and judges the network on them; the loop knows no more.

Letters: B batch, C channels; Z Y X space.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from preprocessing.case import RegionName
from preprocessing.regions import REGIONS
from training.config import TrainConfig
from training.crops import LEVELS, Level
from training.data import Batch, CropSampler, Sample, collate, generator
from training.diffusion import Schedule
from training.distributed import ALONE, Rank
from training.pictures import draw_examples, picture_of

TRAIN, VALIDATE = 0, 1  # streams of random numbers that never meet
GOLDEN = 0.6180339887498949

Control = Callable[[Sequence[Sample], np.random.Generator], Tensor]


class Objective(Protocol):
    """What the loop needs: batches by counter, fixed validation batches, and a loss per sample."""

    def batch(self, step: int, micro: int) -> Batch:
        """The batch of an optimiser step and micro-batch; a pure function of the two."""
        ...

    def validation(self) -> Iterator[Batch]:
        """This rank's share of the fixed validation batches."""
        ...

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of each sample (B), with gradient."""
        ...

    def picture(self, network: nn.Module, device: torch.device) -> bytes:
        """What the network makes of the examples, as PNG."""
        ...


@dataclass(frozen=True)
class NoiseObjective:
    """L1 between ε and ε_θ (SPEC §3.3): pre-training without a control, fine-tuning with one.

    t is uniform on 0 … T−1 for every sample; within a step the samples' t are spread evenly (one uniform offset), which
    leaves each uniform and makes the step's mean less noisy.
    """

    train: CropSampler
    validate: CropSampler
    config: TrainConfig
    schedule: Schedule
    control: Control | None = None
    rank: Rank = ALONE

    def batch(self, step: int, micro: int) -> Batch:
        """A training batch: `batch_size` samples, each decided by (seed, step, rank, index)."""
        per_rank = self.config.batch_size * self.config.accumulate
        first = micro * self.config.batch_size
        offset = generator(self.config.seed, TRAIN, step).random()
        samples, noises, times = [], [], []
        for index in range(first, first + self.config.batch_size):
            rng = generator(self.config.seed, TRAIN, step, self.rank.index, index)
            samples.append(self.train.draw(rng))
            noises.append(self._noise(rng))
            share = (offset + (self.rank.index * per_rank + index) / (self.rank.size * per_rank)) % 1
            times.append(int(share * self.schedule.timesteps))
        rng = generator(self.config.seed, TRAIN, step, self.rank.index, first, 1)
        return self._collate(samples, noises, times, rng)

    def validation(self) -> Iterator[Batch]:
        """`validation_samples` samples that never change: every region and level in turn, t spread over 0 … T−1."""
        count, size = self.config.validation_samples, self.config.batch_size
        for first in range(self.rank.index * size, count, self.rank.size * size):
            yield self._fixed(range(first, min(first + size, count)))

    def examples(self) -> Batch:
        """The first fixed sample of each region, all of one level."""
        return self._fixed(range(len(self._regions())))

    def _fixed(self, indices: range) -> Batch:
        levels = [level for level, share in zip(LEVELS, self.config.levels, strict=True) if share > 0]
        regions = self._regions()
        samples, noises, times = [], [], []
        for index in indices:
            rng = generator(self.config.seed, VALIDATE, index)
            region, level = regions[index % len(regions)], levels[index // len(regions) % len(levels)]
            volumes = [v for v in self.validate.volumes if v.region == region]
            samples.append(self.validate.cut(volumes[rng.integers(len(volumes))], level, rng))
            noises.append(self._noise(rng))
            times.append(int((0.5 + index * GOLDEN) % 1 * self.schedule.timesteps))
        return self._collate(samples, noises, times, generator(self.config.seed, VALIDATE, indices.start, 1))

    def _regions(self) -> list[RegionName]:
        return [region for region in REGIONS if any(v.region == region for v in self.validate.volumes)]

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """mean |ε − ε_θ(x_t, t, conditions, control)| of each sample (B)."""
        x_t = self.schedule.add_noise(batch.x0_B1ZYX, batch.noise_B1ZYX, batch.t_B)
        eps = network(x_t, batch.t_B, batch.conditions, batch.control_BCZYX)
        return (eps - batch.noise_B1ZYX).abs().mean((1, 2, 3, 4))

    def picture(self, network: nn.Module, device: torch.device) -> bytes:
        """What the network draws from noise for the conditions of the examples, as PNG."""
        examples = self.examples()
        return picture_of(examples, draw_examples(network, examples, self.schedule, self.config, device))

    def _noise(self, rng: np.random.Generator) -> NDArray[np.float32]:
        return rng.standard_normal((self.train.patch,) * 3, np.float32)

    def _collate(
        self, samples: list[Sample], noises: list[NDArray[np.float32]], times: list[int], rng: np.random.Generator
    ) -> Batch:
        batch = collate(samples, noises, times)
        return replace(batch, control_BCZYX=self.control(samples, rng)) if self.control else batch


def lesion_control(samples: Sequence[Sample], rng: np.random.Generator) -> Tensor:
    """The lesion masks (B, 1, Z, Y, X) as −1 / 1."""
    return torch.stack([lesion_mask_control(torch.from_numpy(np.asarray(s.lesion_ZYX)))[None] for s in samples])


def lesion_mask_control(mask: Tensor) -> Tensor:
    """A 0/1 mask of any shape as the control that the lesion network was trained with: −1 outside, 1 inside."""
    return (mask > 0).float() * 2 - 1


def low_resolution_control(factor: int) -> Control:
    """The control of super-resolution: each x_0 averaged over `factor` slices and drawn up again, at a random phase."""
    return partial(_low_resolution, factor)


def _low_resolution(factor: int, samples: Sequence[Sample], rng: np.random.Generator) -> Tensor:
    phases = rng.integers(factor, size=len(samples))
    volumes = [torch.from_numpy(s.x0_ZYX)[None, None] for s in samples]
    pairs = zip(volumes, phases, strict=True)
    return torch.cat([upsample_depth(average_depth(x, factor, int(p)), factor, x.shape[2], int(p)) for x, p in pairs])


def average_depth(x_BCZYX: Tensor, factor: int, phase: int = 0) -> Tensor:
    """Means of `factor` consecutive slices; the first block begins `phase` slices before the volume.

    Blocks that stick out repeat the outermost slice.
    """
    depth = x_BCZYX.shape[2]
    behind = -(depth + phase) % factor
    padded = functional.pad(x_BCZYX, (0, 0, 0, 0, phase, behind), mode="replicate")
    return padded.unflatten(2, (-1, factor)).mean(3)


def upsample_depth(low_BCZYX: Tensor, factor: int, depth: int, phase: int = 0) -> Tensor:
    """Blocks of `average_depth` linearly interpolated to `depth` slices; a block lies at the middle of its slices."""
    height, width = low_BCZYX.shape[3:]
    size = (low_BCZYX.shape[2] * factor, height, width)
    drawn = functional.interpolate(low_BCZYX, size, mode="trilinear", align_corners=False)
    return drawn[:, :, phase : phase + depth]


def superresolution_config(config: TrainConfig) -> TrainConfig:
    """Super-resolution learns at the patch level only: elsewhere a slice has another thickness."""
    return config.replace(levels=tuple(float(level == "patch") for level in LEVELS))


def mean_by_group(losses: Sequence[tuple[tuple[str, Level], float]]) -> dict[str, float]:
    """{"val/loss", "val/<region>", "val/<level>", "val/<region>/<level>": mean}."""
    groups: dict[str, list[float]] = {}
    for (region, level), loss in losses:
        for name in ("val/loss", f"val/{region}", f"val/{level}", f"val/{region}/{level}"):
            groups.setdefault(name, []).append(loss)
    return {name: sum(values) / len(values) for name, values in sorted(groups.items())}
