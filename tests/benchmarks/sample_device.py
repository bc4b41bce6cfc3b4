"""A whole CT through the paper's network on a GPU: seconds and memory of a noise estimate, a denoising, a drawing.

And the segmenter's: a training step of the paper preset, whether its gradients stay finite, and reading a whole CT.
Weights are random: nothing here says how good a result is. Needs torch, MONAI, einops and pydantic only:
`python -m benchmarks.sample_device FOLDER` (from `tests`, the checkout on PYTHONPATH); `--tiny` proves that it works.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.train_device import as_text
from benchmarks.train_step import our_network
from training.config import PRETRAIN_PRESETS, SEGMENTER_PRESETS, ModelConfig, SegmenterConfig
from training.diffusion import Schedule
from training.precision import place
from training.restoration import posterior_mean
from training.sampling import dpm_solver, log_snr_timesteps
from training.segmenter import SegmenterNetwork, anatomy_loss, num_labels
from training.sliding_windows import NoisePredictor, Scene, unknown_anatomy

Row = dict[str, Any]
STEPS = 20
TRAINED = 60


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds and peak memory in GB of a piece of work, after one run that is not counted."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    held = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else math.nan
    return time.perf_counter() - began, held


def whole_ct(model: ModelConfig, edge: int, batch: int, device: torch.device) -> Iterator[Row]:
    """One estimate, the posterior mean and a drawing of a field of edge³ voxels, windows overlapping by half."""
    scene = Scene(1, unknown_anatomy((edge,) * 3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (edge,) * 3)
    network = place(our_network(model).eval().requires_grad_(False), device, "bf16")
    schedule = Schedule(model.timesteps)
    predict = NoisePredictor(network, [scene], model.patch, 0.5, batch, precision="bf16", device=device)
    x = torch.randn(1, edge, edge, edge, generator=torch.Generator().manual_seed(0)).to(device)
    steps = log_snr_timesteps(990, STEPS, schedule)
    work = {
        "posterior mean": lambda: posterior_mean(predict, x, 0.1, schedule),
        f"DPM-Solver++, {STEPS} steps": lambda: dpm_solver(predict, x, steps, schedule),
    }
    for what, run in work.items():
        before = predict.evaluations
        with torch.inference_mode():
            seconds, memory = timed(device, run)
        calls = (predict.evaluations - before) // 2
        yield {"what": what, "voxels": f"{edge}^3", "batch": batch, "calls": calls, "s": seconds, "GB": memory}


def segmenter(config: SegmenterConfig, edge: int, device: torch.device) -> Iterator[Row]:
    """A training step in bf16, how many of the gradients were finite, and one whole field."""
    network = place(SegmenterNetwork(config), device, "bf16")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x = torch.randn(1, 1, *(config.patch,) * 3, device=device)
    labels = torch.randint(0, num_labels(config), (config.patch // 8,) * 3, device=device)
    for axis in range(3):
        labels = labels.repeat_interleave(8, axis)
    finite: list[bool] = []

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(x)
        anatomy_loss(logits[0, :-1], labels).backward()
        finite.append(bool(torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0).isfinite()))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, memory = timed(device, step)
    for _ in range(TRAINED):
        step()
    share = f"{sum(finite)}/{len(finite)} finite"
    yield {
        "what": f"segmenter, step, {share}",
        "voxels": f"{config.patch}^3",
        "batch": 1,
        "calls": 1,
        "s": seconds,
        "GB": memory,
    }


def main() -> None:
    """Measure, print, and write both forms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU", "torch": torch.__version__}
    preset, edges, batches = ("tiny", (32,), (1,)) if asked.tiny else ("paper", (256, 512), (8, 2))
    model = PRETRAIN_PRESETS[preset]().model
    rows: list[Row] = []

    def take(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(row, flush=True)

    for edge in edges:
        for batch in batches:
            take(whole_ct(model, edge, batch, device))
    take(segmenter(SEGMENTER_PRESETS[preset](), edges[0], device))
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "sample_device.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    (asked.folder / "sample_device.txt").write_text(f"{about}\n{as_text(rows)}\n")


if __name__ == "__main__":
    main()
