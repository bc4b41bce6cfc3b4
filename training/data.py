"""Training data: region volumes of a manifest, and samples of them as a pure function of a counter.

(seed, step, rank, index) decides case, region, level, crop, noise, t and which conditions are withheld, through a
Philox generator of its own; nothing else does. So a run that was stopped goes on with the samples it would have had.

Letters: B batch; Z Y X space. Values are on [-1, 1] after the region's HU window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infra.errors import UserError
from preprocessing.anatomy import UNKNOWN
from preprocessing.case import RegionName
from preprocessing.manifest import Manifest
from preprocessing.regions import REGIONS, WINDOWS, RegionExtent
from preprocessing.store import StoredCase
from training.conditioning import NULL_REGION, Conditions, coordinates, stack_axes
from training.config import TrainConfig
from training.crops import LEVELS, Crop, Level, place_crop, read_crop

OPEN_CASES = 64
LESION_VOXELS = 4096  # kept per case to aim crops at
BODY_CELLS = 32768  # likewise, of a region's thumbnail


@dataclass(frozen=True)
class RegionVolume:
    """One region of one sealed case; `key` is the stored case in the lake."""

    source: str
    case: str
    key: str
    region: RegionName
    lesion: bool

    def __str__(self) -> str:
        return f"{self.source}/{self.case} ({self.region})"


@dataclass(frozen=True)
class Sample:
    """One crop, on [-1, 1], with what the network may be told of it; `lesion_ZYX` is 0/1 where it was asked for."""

    volume: RegionVolume
    level: Level
    crop: Crop
    x0_ZYX: NDArray[np.float32]
    anatomy_ZYX: NDArray[np.uint8]
    region: int
    lesion_ZYX: NDArray[np.uint8] | None = None

    def __str__(self) -> str:
        return f"{self.volume} {self.level} at {self.crop.start_zyx}"


@dataclass(frozen=True)
class Batch:
    """What one network call learns from; `samples` says where it comes from."""

    x0_B1ZYX: Tensor
    noise_B1ZYX: Tensor
    t_B: Tensor
    conditions: Conditions
    samples: tuple[str, ...]
    groups: tuple[tuple[RegionName, Level], ...]
    control_BCZYX: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device; from pinned memory without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in memory that a GPU can fetch from by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            x0_B1ZYX=move(self.x0_B1ZYX),
            noise_B1ZYX=move(self.noise_B1ZYX),
            t_B=move(self.t_B),
            conditions=self.conditions.each(move),
            control_BCZYX=None if self.control_BCZYX is None else move(self.control_BCZYX),
        )


def generator(seed: int, *counter: int) -> np.random.Generator:
    """The Philox generator of a counter: equal numbers for equal counters, independent ones for others."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=counter)))


def region_volumes(
    manifest: Manifest, split: str, regions: Sequence[RegionName] = (), lesion: bool | None = None
) -> tuple[RegionVolume, ...]:
    """Every region volume of a split, sorted by source, case and region; no `regions` = those that are there.

    Raises:
        UserError: the split has no case (with lesion, where asked for), or a named region has none.
    """
    rows = manifest.sealed(split=split, lesion=lesion)
    volumes = tuple(
        RegionVolume(row["source"], row["case"], row["key"], region, bool(row["lesion"]))
        for row in rows.to_dict("records")
        for region in REGIONS
        if region in row["regions"] and region in (regions or REGIONS)
    )
    kind = "case with a lesion mask" if lesion else "case"
    for region in regions:
        if not any(volume.region == region for volume in volumes):
            raise UserError(
                f"the {split} split of this data has no {kind} of region {region}: ingest one or drop the region"
            )
    if not volumes:
        raise UserError(
            f"the {split} split of this data has no {kind} in any region: ingest more patients or another source"
        )
    return volumes


class CropSampler:
    """Draws samples of region volumes; keeps the last cases open.

    `open_stored` opens a stored case by its lake key. With `lesion_share` set, samples of cases that have one carry
    their lesion mask, and that share of them is aimed at a lesion voxel. With `lesion_only` the region of a case is
    exchanged for another one where only that shows the lesion.
    """

    def __init__(
        self,
        volumes: Sequence[RegionVolume],
        open_stored: Callable[[str], StoredCase],
        patch: int,
        config: TrainConfig,
        lesion_share: float | None = None,
        lesion_only: bool = True,
    ) -> None:
        self.volumes, self.patch, self.config, self.lesion_share = tuple(volumes), patch, config, lesion_share
        self.lesion_only = lesion_only
        self._open_stored = open_stored
        self._open = lru_cache(OPEN_CASES)(open_stored)
        self._lesion_voxels = lru_cache(4 * OPEN_CASES)(self._find_lesion_voxels)
        self._body_cells = lru_cache(4 * OPEN_CASES)(self._find_body_cells)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes what it was made of, not what it holds open."""
        return CropSampler, (
            self.volumes,
            self._open_stored,
            self.patch,
            self.config,
            self.lesion_share,
            self.lesion_only,
        )

    def draw(self, rng: np.random.Generator) -> Sample:
        """A training sample: any volume, level and place, with conditions withheld as the config says."""
        volume = self.volumes[rng.integers(len(self.volumes))]
        if self.lesion_share is not None and self.lesion_only:
            volume = self._with_lesion(volume)
        level = LEVELS[rng.choice(len(LEVELS), p=np.asarray(self.config.levels) / sum(self.config.levels))]
        sample = self.cut(volume, level, rng)
        unknown, null = rng.random(2) < (self.config.unknown_anatomy, self.config.null_region)
        anatomy = np.full_like(sample.anatomy_ZYX, UNKNOWN) if unknown else sample.anatomy_ZYX
        return replace(sample, anatomy_ZYX=anatomy, region=NULL_REGION if null else sample.region)

    def cut(self, volume: RegionVolume, level: Level, rng: np.random.Generator) -> Sample:
        """A sample of one volume and level with all its conditions; the generator decides the place."""
        stored = self._open(volume.key)
        extent = next(e for e in stored.record.regions if e.name == volume.region)
        crop = place_crop(stored, extent, level, self.patch, self._aim(volume, stored, extent, rng))
        lesion = self.lesion_share is not None and volume.lesion
        names = ("image", "anatomy", "lesion") if lesion else ("image", "anatomy")
        arrays = {name: read_crop(stored, extent, crop, name, self.patch) for name in names}
        x0 = WINDOWS[volume.region].normalise(arrays["image"])
        region = REGIONS.index(volume.region)
        return Sample(volume, level, crop, x0, arrays["anatomy"], region, arrays.get("lesion"))

    def _aim(
        self, volume: RegionVolume, stored: StoredCase, extent: RegionExtent, rng: np.random.Generator
    ) -> NDArray[np.intp]:
        """The voxel of the region to centre a crop on: lesion, body, or any."""
        anywhere, lesion, body, choice = rng.random(3), rng.random(), rng.random(), rng.random()
        shape = np.array([extent.z_stop - extent.z_start, *stored.geometry(0).shape[1:]])
        if self.lesion_share is not None and volume.lesion and lesion < self.lesion_share:
            voxels = self._lesion_voxels(volume)
            if len(voxels):
                return voxels[int(choice * len(voxels))]
        if body < self.config.foreground:
            cells, grid = self._body_cells(volume)
            if len(cells):
                cell = np.unravel_index(cells[int(choice * len(cells))], grid)
                anywhere = (np.asarray(cell) + anywhere) / grid
        return (anywhere * shape).astype(np.intp)

    def _with_lesion(self, volume: RegionVolume) -> RegionVolume:
        """The volume, or another region of the same case where it shows no lesion and the other does."""
        siblings = [volume, *(v for v in self.volumes if v.key == volume.key and v != volume)]
        return next((v for v in siblings if len(self._lesion_voxels(v))), volume)

    def _find_body_cells(self, volume: RegionVolume) -> tuple[NDArray[np.int32], tuple[int, ...]]:
        """Cells of the region's thumbnail that hold body, evenly thinned, and the thumbnail's shape."""
        thumbnail = self._open(volume.key).thumbnail(volume.region, "anatomy")
        cells = np.flatnonzero(thumbnail).astype(np.int32)
        return cells[:: -(-len(cells) // BODY_CELLS) or 1], thumbnail.shape

    def _find_lesion_voxels(self, volume: RegionVolume) -> NDArray[np.intp]:
        stored = self._open(volume.key)
        extent = next(e for e in stored.record.regions if e.name == volume.region)
        voxels = np.argwhere(stored.read_all("lesion")[extent.z_start : extent.z_stop])
        return voxels[:: max(1, len(voxels) // LESION_VOXELS)]


def collate(samples: Sequence[Sample], noises: Sequence[NDArray[np.float32]], times: Sequence[int]) -> Batch:
    """Samples, their noise and their t as one batch; coordinates are computed from the crops."""
    crops = [sample.crop for sample in samples]
    axes = [
        coordinates(c.start_zyx, c.step_zyx, c.canvas.canvas_zyx, n.shape) for c, n in zip(crops, noises, strict=True)
    ]
    return Batch(
        x0_B1ZYX=torch.from_numpy(np.stack([s.x0_ZYX for s in samples])[:, None]),
        noise_B1ZYX=torch.from_numpy(np.stack(noises)[:, None]),
        t_B=torch.tensor(times),
        conditions=Conditions(
            torch.tensor([s.region for s in samples]),
            torch.from_numpy(np.stack([s.anatomy_ZYX for s in samples])),
            stack_axes(axes),
        ),
        samples=tuple(str(s) for s in samples),
        groups=tuple((s.volume.region, s.level) for s in samples),
    )
