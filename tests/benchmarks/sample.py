"""Sampling as we do it beside the naive way: 1000 steps, one window a call, windows of air not skipped.

A small model learns phantoms from head to pelvis in minutes. On crops of held-out phantoms of eight windows both sides
are run to their end, and the quality of both is measured; on whole regions the naive side is timed for 20 of its 1000
steps, and the rest extrapolated. Naive denoising is DiffPIR from pure noise over every t; naive drawing is DDPM over
every t. Dice is that of tissues (lung, fat, soft tissue, bone by their HU) between the volume drawn and the real one
of the same map.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean, median

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.measure import timed
from benchmarks.small_phantoms import MODEL, RECIPE, TRAIN, phantom_lake
from evaluation.metrics import dice, psnr
from evaluation.tasks.context import to_tensor
from evaluation.tasks.crop import Crop, Subject, crop_body
from flows import terminal
from infra.lake import Lake
from preprocessing.manifest import read_manifest
from preprocessing.store import open_case
from training.config import PretrainConfig, SamplerName
from training.diffusion import Schedule
from training.launch import pretrain
from training.loading import load_network
from training.restoration import diffpir, identity_step, noise_start, posterior_mean
from training.sampling import SAMPLERS, draw_noise, uniform_timesteps
from training.sliding_windows import NoisePredictor

REAL_CTS = False
TITLE = "sample: network evaluations and seconds against the naive way (1000 steps, one window a call, none skipped)"
PATCH, FIELD, QUICK_WHOLE = MODEL.patch, (24, 24, 24), (24, 24, 32)
SIGMA, START, NAIVE_STEPS, TIMED_STEPS, REPEATS = 0.15, 990, 1000, 20, 3
NETWORK = MODEL.replace(attention=(False, False))
ITERATIONS = 600
OURS: tuple[tuple[SamplerName, int, float], ...] = (  # sampler, steps, guidance
    ("dpm-solver++", 10, 1.0),
    ("dpm-solver++", 20, 1.0),
    ("dpm-solver++", 10, 2.0),
    ("dpm-solver++", 20, 2.0),
    ("ddim", 20, 1.0),
    ("ddim", 50, 1.0),
)
TISSUES_HU = {"lung": (-950, -400), "fat": (-200, -30), "soft": (-30, 150), "bone": (150, 3000)}
LEAST_VOXELS = 50
WINDOWS_AT_ONCE = 8


@dataclass(frozen=True)
class Field:
    """What is drawn or denoised: a crop, its image on [-1, 1], and the same with noise."""

    crop: Crop
    x: NDArray[np.float32]
    noisy: NDArray[np.float32]

    @property
    def megavoxels(self) -> float:
        """Its size."""
        return self.x.size / 1e6

    def predictor(self, network: torch.nn.Module, task: str, *, naive: bool, guidance: float = 1.0) -> NoisePredictor:
        """Noise estimates as either side asks for them."""
        known = self.crop.labelled_scene(self.crop.labels()) if task == "synthesis" else self.crop.blind_scene()
        if naive:
            return NoisePredictor(network, [known], PATCH, max_batch=1)
        body, outside = torch.as_tensor(self.crop.labels() > 0), torch.as_tensor(self.noisy)
        scene = replace(known, body_ZYX=body, outside_ZYX=outside)
        return NoisePredictor(
            network,
            [scene],
            PATCH,
            max_batch=WINDOWS_AT_ONCE,
            guidance=guidance,
            schedule=Schedule(MODEL.timesteps),
        )

    def quality(self, task: str, x: NDArray) -> float:
        """PSNR in dB within the body where the image does not saturate, or the Dice of tissues."""
        if task == "denoising":
            return psnr(np.clip(x, -1, 1), self.x, (self.crop.labels() > 0) & (np.abs(self.x) < 1))
        drawn, real = (self.crop.window.to_hu(v) for v in (x, self.x))
        scores = []
        for low, high in TISSUES_HU.values():
            wanted = (real >= low) & (real < high)
            if wanted.sum() >= LEAST_VOXELS:
                scores.append(dice((drawn >= low) & (drawn < high), wanted))
        return mean(scores)


@dataclass(frozen=True)
class Side:
    """One way of doing a task; `draw` does the given number of its steps, beginning with the first."""

    task: str
    method: str
    steps: int
    draw: Callable[[NoisePredictor, Field, int, int], torch.Tensor]
    guidance: float = 1.0

    @property
    def naive(self) -> bool:
        """Whether it is what the others are measured against."""
        return self.method == "naive"


def run(quick: bool = False) -> list[dict]:
    """A row per task, field and way of doing it; on whole regions the naive one is extrapolated from 20 steps."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as folder:
        lake = phantom_lake(folder)
        network = trained(lake, 2 if quick else ITERATIONS)
        subjects = held_out(lake)[: 1 if quick else 2]
        sides = list(all_sides(10 if quick else NAIVE_STEPS))
        small, whole = ([field_of(s, shape) for s in subjects] for shape in (FIELD, QUICK_WHOLE if quick else None))
        rows = []
        for side in track(sides, "eight windows", console=terminal.err()):
            rows.append(measured(network, side, small, 1 if side.naive or quick else REPEATS))
        for side in track(sides, "whole regions", console=terminal.err()):
            rows.append(timed_only(network, side, whole[:1]))
        return with_ratios(rows)


def trained(lake: Lake, iterations: int) -> torch.nn.Module:
    """The network of an ordinary pre-training run."""
    train = TRAIN.replace(iterations=iterations, ema_decay=0.99, levels=(0.1, 0.1, 0.8))
    config = PretrainConfig(preset="bench-sample", model=NETWORK, train=train)
    logged = iter(track(range(iterations // TRAIN.log_every), "training", console=terminal.err()))
    run = pretrain(lake, RECIPE, config, on_log=lambda *_: next(logged, None))
    next(logged, None)
    return load_network(lake, run.key)[0]


def held_out(lake: Lake) -> list[Subject]:
    """A chest and an abdomen that no training saw."""
    found = {}
    for row in read_manifest(lake, RECIPE).sealed(split="test").to_dict("records"):
        stored = open_case(lake, row["key"])
        for extent in stored.record.regions:
            found.setdefault(extent.name, Subject(stored, row["source"], row["case"], row["patient"], extent))
    return [found[region] for region in ("chest", "abdomen")]


def field_of(subject: Subject, shape: tuple[int, int, int] | None) -> Field:
    """A crop of the body, or the whole region."""
    z, y, x = (max(PATCH, n) for n in subject.shape_zyx)
    crop = crop_body(subject, shape or (z, y, x))
    image = crop.normalised()
    noise = np.random.default_rng(0).standard_normal(image.shape, np.float32)
    return Field(crop, image, image + np.float32(SIGMA) * noise)


def all_sides(naive_steps: int) -> Iterator[Side]:
    """The naive way first, of either task."""
    schedule, every = Schedule(MODEL.timesteps), uniform_timesteps(MODEL.timesteps - 1, naive_steps)

    def diffpir_from_noise(predict: NoisePredictor, field: Field, steps: int, seed: int) -> torch.Tensor:
        y, generator = to_tensor([field.noisy]), torch.Generator().manual_seed(seed)
        return diffpir(
            predict,
            noise_start(y, every[0], schedule, generator),
            identity_step(y),
            sigma_n=SIGMA,
            lam=10.0,
            timesteps=every[:steps],
            schedule=schedule,
            generator=generator,
        )

    def mean_estimate(predict: NoisePredictor, field: Field, steps: int, seed: int) -> torch.Tensor:
        return posterior_mean(predict, to_tensor([field.noisy]), SIGMA, schedule)

    def drawing(sampler: SamplerName, times: tuple[int, ...]) -> Callable:
        def draw(predict: NoisePredictor, field: Field, steps: int, seed: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            noise = draw_noise(to_tensor([field.x]), generator)
            return SAMPLERS[sampler](predict, noise, times[:steps], schedule, generator=generator)

        return draw

    yield Side("denoising", "naive", naive_steps, diffpir_from_noise)
    yield Side("denoising", "mean", 1, mean_estimate)
    yield Side("synthesis", "naive", naive_steps, drawing("ddpm", every))
    for sampler, steps, guidance in OURS:
        method = sampler if guidance == 1 else f"{sampler}, guidance {guidance:g}"
        yield Side("synthesis", method, steps, drawing(sampler, uniform_timesteps(START, steps)), guidance)


def measured(network: torch.nn.Module, side: Side, fields: list[Field], repeats: int) -> dict:
    """All steps on every field: the time of one (median over repeats, summed), and the mean quality."""
    seconds, evaluations, quality = 0.0, 0, []
    for field in fields:
        runs = []
        for seed in range(repeats):
            predict = field.predictor(network, side.task, naive=side.naive, guidance=side.guidance)
            taken, x = timed(lambda p=predict, f=field, s=seed: side.draw(p, f, side.steps, s))
            runs.append(taken)
            quality.append(field.quality(side.task, x[0].numpy()))
        seconds, evaluations = seconds + median(runs), evaluations + predict.evaluations
    return row(side, fields, evaluations, seconds, "", mean(quality))


def timed_only(network: torch.nn.Module, side: Side, fields: list[Field]) -> dict:
    """The time of a whole field; of the naive side from the first steps."""
    steps, (field,) = min(side.steps, TIMED_STEPS) if side.naive else side.steps, fields
    predict = field.predictor(network, side.task, naive=side.naive, guidance=side.guidance)
    taken, _ = timed(lambda: side.draw(predict, field, steps, 0))
    share = side.steps / steps
    note = f"extrapolated from {steps} steps" if share > 1 else ""
    return row(side, fields, round(predict.evaluations * share), taken * share, note, None)


def row(
    side: Side, fields: list[Field], evaluations: int, seconds: float, note: str, quality: float | None
) -> dict[str, object]:
    """What the table shows of one side on fields of one size."""
    return {
        "task": side.task,
        "voxels": " x ".join(map(str, fields[0].x.shape)),
        "method": side.method,
        "steps": side.steps,
        "evaluations": evaluations,
        "s": seconds,
        "s_per_megavoxel": seconds / sum(field.megavoxels for field in fields),
        "x_faster": None,
        "quality": quality,
        "quality_is": "" if quality is None else {"denoising": "PSNR, dB", "synthesis": "Dice of tissues"}[side.task],
        "note": note,
    }


def with_ratios(rows: list[dict]) -> list[dict]:
    """How many times faster each is than the naive side of its task and size."""
    naive = {(r["task"], r["voxels"]): r["s"] for r in rows if r["method"] == "naive"}
    return [r | {"x_faster": naive[r["task"], r["voxels"]] / r["s"]} for r in rows]
