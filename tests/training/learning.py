"""Trains small models on phantoms, each arm of an ablation in seeds, and judges them on one fixed set of samples."""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from infra.lake import Lake, open_lake
from preprocessing.ingest import ingest
from preprocessing.manifest import read_manifest
from preprocessing.recipe import demo
from preprocessing.regions import REGIONS
from preprocessing.sources.phantom import PhantomSource
from preprocessing.store import open_case
from training.conditioning import Conditions
from training.config import ModelConfig, PretrainConfig, TrainConfig
from training.crops import LEVELS
from training.data import CropSampler, Sample, collate, generator, region_volumes
from training.diffusion import Schedule
from training.launch import pretrain
from training.loading import load_network

RECIPE = demo().replace(name="learning", spacing_mm=8.0, thumbnail_size=16, levels=2, chunk=16, shard=32)
PATIENTS = 24  # as many as the recipe's salt is made for
PATCH = 16
MODEL = ModelConfig(
    patch=PATCH,
    channels=(8, 16),
    attention=(False, True),
    norm_groups=4,
    head_channels=8,
    context_dim=16,
    anatomy_channels=8,
    position_frequencies=3,
)
TRAIN = TrainConfig(
    iterations=200,
    batch_size=8,
    accumulate=1,
    learning_rate=2e-3,
    warmup=20,
    ema_decay=0.99,
    validation_samples=0,
    checkpoint_every=200,
    picture_every=0,
)
FULL = PretrainConfig(preset="learning", model=MODEL, train=TRAIN)
ARMS = {
    "full": FULL,
    "no anatomy": FULL.replace(train=TRAIN.replace(unknown_anatomy=1.0)),
    "neither": FULL.replace(model=MODEL.replace(position="none"), train=TRAIN.replace(unknown_anatomy=1.0)),
}
TIMES = (100, 200, 400, 500, 700, 800)
BATCH = 17
Change = Callable[[Conditions, Sequence[Sample]], Conditions]


def phantom_lake(path: str) -> Lake:
    """A lake of small phantoms from head to pelvis at 8 mm."""
    lake = open_lake(path)
    ingest(lake, RECIPE, [PhantomSource(patients=PATIENTS, resolution="tiny", dose_pairs=False)])
    return lake


def train_arms(lake: Lake, seeds: Iterable[int]) -> pd.DataFrame:
    """One row per arm and seed: its run's key and loss curve. Two processes of one thread train side by side."""
    jobs = [(lake.url, arm, seed) for seed in seeds for arm in ARMS]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pd.DataFrame(pool.starmap(_train, jobs, chunksize=1))


def _train(url: str, arm: str, seed: int) -> dict:
    torch.set_num_threads(1)
    config = ARMS[arm]
    run = pretrain(open_lake(url), RECIPE, config.replace(train=config.train.replace(seed=seed)))
    return {"arm": arm, "seed": seed, "key": run.key, "history": run.history}


@dataclass(frozen=True)
class FixedSet:
    """Crops of patients that no training saw, one of each level per region volume; noise and t are decided by index."""

    samples: tuple[Sample, ...]
    patients: tuple[str, ...]

    @staticmethod
    def of(lake: Lake) -> "FixedSet":
        """All region volumes of the validation and test splits."""
        manifest = read_manifest(lake, RECIPE)
        volumes = [volume for split in ("val", "test") for volume in region_volumes(manifest, split)]
        sampler = CropSampler(volumes, partial(open_case, lake), PATCH, TRAIN)
        patient = {row["case"]: row["patient"] for row in manifest.sealed().to_dict("records")}
        drawn = [
            (sampler.cut(volume, level, generator(7, i, j)), patient[volume.case])
            for i, volume in enumerate(volumes)
            for j, level in enumerate(LEVELS)
        ]
        samples, patients = zip(*drawn, strict=True)
        return FixedSet(samples, patients)

    def losses(self, lake: Lake, key: str, change: Change) -> pd.DataFrame:
        """A row per sample and t: the L1 of ε of a run's network when its conditions are changed."""
        network, model, _ = load_network(lake, key)
        schedule = Schedule(model.timesteps)
        rows = []
        for t in TIMES:
            for first in range(0, len(self.samples), BATCH):
                some = self.samples[first : first + BATCH]
                noises = [
                    generator(8, t, first + k).standard_normal((PATCH,) * 3, np.float32) for k in range(len(some))
                ]
                batch = collate(some, noises, [t] * len(some))
                x_t = schedule.add_noise(batch.x0_B1ZYX, batch.noise_B1ZYX, batch.t_B)
                with torch.no_grad():
                    eps = network(x_t, batch.t_B, change(batch.conditions, some))
                values = (eps - batch.noise_B1ZYX).abs().mean((1, 2, 3, 4)).tolist()
                rows += [{"sample": first + k, "t": t, "loss": value} for k, value in enumerate(values)]
        return pd.DataFrame(rows).assign(
            patient=lambda d: [self.patients[i] for i in d["sample"]],
            level=lambda d: [self.samples[i].level for i in d["sample"]],
        )

    def of_another_patient(self, conditions: Conditions, samples: Sequence[Sample]) -> Conditions:
        """The anatomy of a crop of the same region and level in somebody else."""
        maps = []
        for sample in samples:
            own = self.samples.index(sample)
            others = [
                s.anatomy_ZYX
                for s, patient in zip(self.samples, self.patients, strict=True)
                if (s.level, s.volume.region) == (sample.level, sample.volume.region) and patient != self.patients[own]
            ]
            maps.append(others[own % len(others)])
        return replace(conditions, anatomy_BZYX=torch.from_numpy(np.stack(maps)))


def as_they_are(conditions: Conditions, samples: Sequence[Sample]) -> Conditions:
    """Nothing changed."""
    return conditions


def anatomy_unknown(conditions: Conditions, samples: Sequence[Sample]) -> Conditions:
    """As for a CT without labels."""
    return conditions.without_anatomy()


def wrong_region(conditions: Conditions, samples: Sequence[Sample]) -> Conditions:
    """Anatomy unknown, and the region is the next one."""
    return replace(conditions.without_anatomy(), region_B=(conditions.region_B + 1) % len(REGIONS))
