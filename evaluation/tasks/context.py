"""What every task is given, and what it answers with: rows of the tidy table and pictures for the report."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.baselines import class_means
from evaluation.config import EvaluateConfig, TaskName
from evaluation.curves import Curve
from evaluation.metrics import Measurement, missing
from evaluation.segmenters import LakeSegmenter
from evaluation.tasks.crop import Subject
from infra.errors import UserError
from infra.lake import Lake
from preprocessing.case import RegionName
from preprocessing.manifest import Manifest
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS, Window
from preprocessing.store import open_case
from training.config import ModelConfig
from training.diffusion import Schedule
from training.sliding_windows import NoisePredictor, Scene

Row = dict[str, Any]


class Panel(NamedTuple):
    """One image of a picture row: a 3-D array, in HU where a window is given; without one, its own range is shown."""

    caption: str
    image: NDArray
    window: Window | None = None


@dataclass(frozen=True)
class Picture:
    """A row of panels on one grid, of which the report draws three planes through `centre_zyx`.

    `z_mm`: where the first axial slice lies in the world, and how far it is to the next one upwards.
    """

    title: str
    panels: list[Panel]
    centre_zyx: tuple[int, int, int] | None = None
    z_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class TaskResult:
    """What a task found."""

    rows: list[Row] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


@dataclass
class TaskContext:
    """Models, data and settings of a sweep; it counts the network evaluations that its predictors make."""

    lake: Lake
    manifest: Manifest
    recipe: Recipe
    base: nn.Module
    controls: dict[str, nn.Module]
    model: ModelConfig
    config: EvaluateConfig
    checkpoint: str
    device: str = "cpu"
    segmenter: LakeSegmenter | None = None
    on_evaluation: Callable[[int], None] | None = None
    evaluations: int = 0
    _means: dict[RegionName, NDArray] = field(default_factory=dict, repr=False)

    @property
    def seed(self) -> int:
        """The seed of this measurement: a cell has one."""
        return self.config.seeds[0]

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule that the models were trained with."""
        return Schedule(self.model.timesteps)

    def predictor(self, scenes: Sequence[Scene], control: str | None = None) -> NoisePredictor:
        """Noise estimates of these scenes by the base network, or by the ControlNet of that name."""
        return NoisePredictor(
            self.controls[control] if control else self.base,
            scenes,
            self.model.patch,
            self.config.overlap,
            self.config.max_batch,
            precision=self.config.precision,
            device=self.device,
            on_evaluation=self._count,
        )

    def _count(self) -> None:
        self.evaluations += 1
        if self.on_evaluation:
            self.on_evaluation(self.evaluations)

    def subjects(self, region: RegionName, split: str, limit: int | None = None) -> list[Subject]:
        """One case per patient of a region and split, sources taking turns.

        Raises:
            UserError: the region has cases, but none in this split.
        """
        found = self.manifest.sealed(split=split, region=region)
        if split == "test" and self.config.datasets:
            found = found[found["source"].isin(self.config.datasets)]
        if found.empty and not self.manifest.sealed(region=region).empty:
            raise UserError(
                f"region {region!r} has no {split!r} case, and the sweep needs one: ingest more patients of it, "
                f"or leave it out of the sweep's regions"
            )
        return [
            self._subject(row, region) for row in _one_per_patient(found).head(limit or len(found)).to_dict("records")
        ]

    def _subject(self, row: dict, region: RegionName) -> Subject:
        stored = open_case(self.lake, row["key"])
        extent = next(extent for extent in stored.record.regions if extent.name == region)
        return Subject(stored, row["source"], row["case"], row["patient"], extent)

    def class_means(self, region: RegionName) -> NDArray[np.float32]:
        """The mean of each class on [-1, 1] in a region's window, from training thumbnails; measured once."""
        if region not in self._means:
            cases = self.subjects(region, "train", self.config.class_mean_cases)
            thumbnails = ((s.stored.thumbnail(region, "image"), s.stored.thumbnail(region, "anatomy")) for s in cases)
            self._means[region] = class_means((WINDOWS[region].normalise(hu), anatomy) for hu, anatomy in thumbnails)
        return self._means[region]

    def seed_for(self, *words: object) -> int:
        """A seed that depends on the sweep's seed and these words alone."""
        text = "/".join(map(str, (self.seed, *words)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    def generator(self, *words: object) -> torch.Generator:
        """A torch generator for these words."""
        return torch.Generator().manual_seed(self.seed_for(*words))

    def noise(self, shape: Sequence[int], *words: object) -> NDArray[np.float32]:
        """Standard normal noise for these words, float32; a case's noise does not depend on which others are there."""
        return np.random.default_rng(self.seed_for(*words)).standard_normal(tuple(shape), np.float32)

    def rows(
        self, task: TaskName, subject: Subject, setting: str, method: str, measurements: Iterable[Measurement]
    ) -> list[Row]:
        """Tidy rows of one case."""
        where = {
            "dataset": self._dataset(subject.source),
            "region": subject.region,
            "case": subject.case,
            "patient": subject.patient,
            "patients": 1,
        }
        return [self._row(task, setting, method, measurement) | where for measurement in measurements]

    def set_rows(
        self,
        task: TaskName,
        region: str,
        subjects: Sequence[Subject],
        setting: str,
        method: str,
        measurements: Iterable[Measurement],
    ) -> list[Row]:
        """Tidy rows of a whole set of cases: no one patient, but how many."""
        dataset = "+".join(sorted({subject.source for subject in subjects}))
        patients = len({(subject.source, subject.patient) for subject in subjects})
        where = {"dataset": self._dataset(dataset), "region": region, "case": "", "patient": "", "patients": patients}
        return [self._row(task, setting, method, measurement) | where for measurement in measurements]

    def unmeasured(self, task: TaskName, region: str, metric: str, unit: str, reason: str) -> list[Row]:
        """The row that says why a region or a task has no number."""
        own = self.config.regions[0] if len(self.config.regions) == 1 else ""
        return self.set_rows(task, region or own, (), "", "ours", [missing(metric, unit, reason)])

    def _dataset(self, source: str) -> str:
        """The data set of a row; marked where duplicates of test cases were left in the training data."""
        return f"{source} (paper-like)".strip() if self.manifest.paper_like else source

    def _row(self, task: TaskName, setting: str, method: str, measurement: Measurement) -> Row:
        return {
            "checkpoint": self.checkpoint,
            "task": task,
            "setting": setting,
            "method": method,
            "seed": self.seed,
            **measurement._asdict(),
        }


def _one_per_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """The first case of each patient; first one of each source, then the next of each."""
    first = rows.drop_duplicates(["source", "patient"])
    turn = first.groupby("source").cumcount()
    return first.assign(turn=turn).sort_values(["turn", "source", "case"], kind="stable")


def to_tensor(arrays: Sequence[NDArray]) -> Tensor:
    """Fields as one float32 batch (B, Z, Y, X)."""
    return torch.as_tensor(np.stack(arrays).astype(np.float32))


def to_arrays(x_BZYX: Tensor) -> list[NDArray[np.float32]]:
    """A batch as one float32 array per field."""
    return list(x_BZYX.float().cpu().numpy())
