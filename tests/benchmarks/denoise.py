"""Zero-shot denoising of real patients after ten minutes of training on others, beside classical smoothers.

A small model learns from the real CTs of everyone but the judged patients, in an ordinary pre-training run. Then noise
is added to crops of the judged ones, in the body, three draws each: white, and correlated as filtered back-projection
makes it (a ramp filter within the slice). Total variation and the other smoothers have their parameter chosen *on the
judged image itself* (its first draw), which no user could do; ours is told σ alone. BM4D is measured where it is
installed.
"""

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import track

from evaluation import baselines
from evaluation.metrics import psnr
from evaluation.tasks.context import to_tensor
from evaluation.tasks.crop import Crop, Subject, crop_body
from flows import terminal
from infra.lake import Lake, open_lake
from preprocessing.case import Case
from preprocessing.ingest import ingest
from preprocessing.manifest import read_manifest
from preprocessing.recipe import Recipe
from preprocessing.sources.folder import FolderSource
from preprocessing.store import open_case
from training.config import ModelConfig, PretrainConfig, TrainConfig
from training.diffusion import Schedule
from training.launch import pretrain
from training.loading import load_network
from training.restoration import consistent_start, diffpir, identity_step, posterior_mean
from training.sampling import uniform_timesteps
from training.sliding_windows import NoisePredictor

REAL_CTS = True
TITLE = "denoise: PSNR in dB within the body, data range 2; mean and spread over three draws of noise of σ = .15"
SIGMA, SEEDS = 0.15, (0, 1, 2)
FIELD, QUICK = (32, 64, 64), (32, 32, 32)
QUICK_CASES = "head-neck__pt_(2|54|7)"
JUDGED = {"chest-full", "head-neck__pt_98", "head-neck__pt_7"}
VALIDATION = {"head-neck__pt_54"}
TRAINING = re.compile("lung-lesion|lung-two-visits__.*|abdomen-3mm|abdomen-dicom|head-4mm|head-neck__.*")
REGIONS = {"abdomen-dicom": "abdomen", "lung-two-visits__3DCT_lung_followup": "chest"}  # what their images cannot prove
RECIPE = Recipe(name="bench-denoise", spacing_mm=2.0, levels=2, thumbnail_size=32, chunk=32, shard=128)
MODEL = ModelConfig(
    patch=32,
    channels=(16, 32),
    attention=(False, False),
    norm_groups=8,
    head_channels=16,
    anatomy_channels=8,
)
TRAIN = TrainConfig(
    iterations=540,
    batch_size=2,
    accumulate=1,
    learning_rate=1.5e-3,
    warmup=30,
    ema_decay=0.99,
    levels=(0.1, 0.1, 0.8),
    unknown_anatomy=0.5,
    validation_samples=0,
    checkpoint_every=540,
    picture_every=0,
)
SMOOTHERS: dict[str, tuple[float, ...]] = {
    "gaussian": (0.4, 0.5, 0.6, 0.8, 1.0),
    "tv": (0.4, 0.6, 0.8, 1.0, 1.3, 1.7),
    "nlm": (0.6, 0.8, 1.0),
}


class RealPatients(FolderSource):
    """The real CTs, each patient in the split that this benchmark gives it; the others are left out."""

    only: str = Field(".*", description="pattern of the ids of the cases that are taken")

    def cases(self, *_: object) -> list[Case]:
        """The cases of the three splits."""
        healthy = [case for case in super().cases() if not case.problem and re.fullmatch(self.only, case.id)]
        return [
            case.replace(split=split, declared_regions=tuple(filter(None, [REGIONS.get(case.id)])))
            for case in healthy
            if (split := self._split(case.id))
        ]

    def _split(self, case: str) -> str:
        if case in JUDGED:
            return "test"
        return "val" if case in VALIDATION else "train" if TRAINING.fullmatch(case) else ""


@dataclass(frozen=True)
class Noisy:
    """One crop of a judged patient with one draw of noise, on [-1, 1]."""

    crop: Crop
    reference: NDArray[np.float32]
    noisy: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def psnr(self, x: NDArray) -> float:
        """Of an estimate, within the body and where the reference does not saturate."""
        return psnr(np.clip(x, -1, 1), self.reference, self.mask)


def run(data: Path, quick: bool = False) -> list[dict]:
    """A row per patient, region, kind of noise and method."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as folder:
        lake = open_lake(folder)
        ingest(lake, RECIPE, [RealPatients(path=str(data), only=QUICK_CASES if quick else ".*")])
        config = PretrainConfig(preset="bench-denoise", model=MODEL, train=TRAIN)
        network, minutes = train_on_others(lake, config.replace(train=TRAIN.replace(iterations=2)) if quick else config)
        rows = []
        for subject in track(judged(lake), "judging", console=terminal.err()):
            rows += list(judge(network, subject, QUICK if quick else FIELD, SEEDS[: 1 if quick else None], minutes))
        return rows


def train_on_others(lake: Lake, config: PretrainConfig) -> tuple[torch.nn.Module, float]:
    """The network, and how many minutes its training took."""
    started = time.monotonic()
    logged = iter(track(range(config.train.iterations // config.train.log_every), "training", console=terminal.err()))
    trained = pretrain(lake, RECIPE, config, on_log=lambda *_: next(logged, None))
    next(logged, None)
    return load_network(lake, trained.key)[0], (time.monotonic() - started) / 60


def judged(lake: Lake) -> list[Subject]:
    """Every region of every judged patient."""
    subjects = []
    for row in read_manifest(lake, RECIPE).sealed(split="test").to_dict("records"):
        stored = open_case(lake, row["key"])
        subjects += [Subject(stored, row["source"], row["case"], row["patient"], e) for e in stored.record.regions]
    return subjects


def judge(
    network: torch.nn.Module, subject: Subject, field: tuple[int, int, int], seeds: Sequence[int], minutes: float
) -> Iterator[dict]:
    """Rows of one patient's region: every method on both kinds of noise."""
    crop = crop_body(subject, field)
    reference = crop.normalised()
    mask = (crop.labels() > 0) & (np.abs(reference) < 1)
    for kind, noise in (("white", white), ("correlated", correlated)):
        draws = [Noisy(crop, reference, reference + np.float32(SIGMA) * noise(field, s), mask) for s in seeds]
        for method, values in scores(network, draws).items():
            spread = stdev(values) if len(values) > 1 else 0.0
            yield {
                "patient": subject.case,
                "region": subject.region,
                "noise": kind,
                "method": method,
                "psnr_db": mean(values),
                "spread_db": spread,
                "train_minutes": minutes if method.startswith("ours") else None,
            }


def scores(network: torch.nn.Module, draws: Sequence[Noisy]) -> dict[str, list[float]]:
    """PSNR of every method on every draw."""
    found = {"noisy": [draw.psnr(draw.noisy) for draw in draws]}
    for method, candidates in SMOOTHERS.items():
        best = max(candidates, key=lambda c, method=method: draws[0].psnr(smoothed(method, draws[0].noisy, c)))
        found[method] = [draw.psnr(smoothed(method, draw.noisy, best)) for draw in draws]
    if find_spec("bm4d"):
        found["bm4d"] = [draw.psnr(_bm4d(draw.noisy)) for draw in draws]
    found["ours-mean"] = [draw.psnr(posterior_mean_of(network, draw)) for draw in draws]
    found["ours-restore"] = [draws[0].psnr(restored(network, draws[0]))]  # twenty evaluations: once is enough
    return found


def smoothed(method: str, noisy: NDArray, parameter: float) -> NDArray:
    """A classical smoother that is told σ."""
    return baselines.smooth(method, noisy, SIGMA, parameter, 3)


def _bm4d(noisy: NDArray) -> NDArray:
    import bm4d

    return bm4d.bm4d(noisy, SIGMA)


def posterior_mean_of(network: torch.nn.Module, draw: Noisy) -> NDArray:
    """One evaluation."""
    predict, schedule = _predictor(network, draw.crop)
    return posterior_mean(predict, to_tensor([draw.noisy]), SIGMA, schedule)[0].numpy()


def restored(network: torch.nn.Module, draw: Noisy) -> NDArray:
    """DiffPIR with the defaults of SPEC §6.2."""
    predict, schedule = _predictor(network, draw.crop)
    y, start = to_tensor([draw.noisy]), schedule.nearest_t(SIGMA)
    return diffpir(
        predict,
        consistent_start(y, SIGMA, start, schedule),
        identity_step(y),
        sigma_n=SIGMA,
        lam=10.0,
        timesteps=uniform_timesteps(start, 20),
        schedule=schedule,
    )[0].numpy()


def _predictor(network: torch.nn.Module, crop: Crop) -> tuple[NoisePredictor, Schedule]:
    return NoisePredictor(network, [crop.blind_scene()], MODEL.patch), Schedule(MODEL.timesteps)


def white(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Independent in every voxel, of standard deviation 1."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def correlated(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """White noise through a ramp filter with a Hann window in each slice, of standard deviation 1."""
    y, x = (np.fft.fftfreq(n)[:, None] if axis == 0 else np.fft.fftfreq(n) for axis, n in enumerate(shape[1:]))
    frequency = np.minimum(np.hypot(y, x), 0.5)
    ramp = frequency * (0.5 + 0.5 * np.cos(2 * np.pi * frequency))
    noise = np.fft.ifft2(np.fft.fft2(white(shape, seed)) * ramp).real
    return (noise / noise.std()).astype(np.float32)
