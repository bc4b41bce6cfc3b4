"""Pre-training, measured: its loader and its step against what one builds of MONAI's and nnU-Net's parts.

`over_ours` is a side's time over ours in the same run: above 1 ours is faster. `MB` is the memory that a step needs
beyond what was held before it, in a process of its own, or what a sample fetches. A GPU, where there is one, is
measured by `train_device`; elsewhere its absence is a row.
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from process_memory import peak_bytes, resident_bytes

from benchmarks.train_device import TINY, measure, variants
from benchmarks.train_loader import loader_rows
from benchmarks.train_step import EmbeddedNetwork, OneHotNetwork, make_step, our_network, random_input, with_our_weights
from preprocessing import recipe as recipes
from training.config import ModelConfig, paper
from training.precision import Precision, effective_precision, place

REAL_CTS = True
TITLE = "train: ms a sample or a step; over_ours = that side's time over ours in the same run"
CPU = torch.device("cpu")
SIDES = ("ours", "MONAI one-hot", "MONAI embedded")
DEVICE_SECONDS = 600
Row = dict[str, Any]


def run(data: Path, quick: bool = False) -> list[Row]:
    """Rows of the loader, of a step on this CPU, and of a step on its GPU."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as folder:
        if quick:
            rows = loader_rows(data, Path(folder), recipes.demo(), "abdomen-3mm", 16, 2)
        else:
            rows = loader_rows(data, Path(folder), recipes.paper(), "chest-full", 128, 24)
    model, patch, rounds = (TINY, 8, 1) if quick else (paper().model, 64, 3)
    rows += step_rows(model.replace(patch=patch), "fp32", rounds)
    if effective_precision("bf16", CPU) == "bf16":
        rows += step_rows(model.replace(patch=patch), "bf16", rounds)
    else:
        rows.append(_row("step, CPU, bf16", "all", note="not measured: this CPU emulates bf16, 200 times as slow"))
    return rows + device_rows(TINY if quick else None)


def step_rows(config: ModelConfig, precision: Precision, rounds: int) -> list[Row]:
    """Every side's step on the CPU, in turn in this process; memory from a process for each."""
    given = random_input(config.patch, 1, CPU)
    steps = {side: make_step(make_side(side, config, precision), given, precision) for side in SIDES}
    losses = {side: float(step()) for side, step in steps.items()}
    if max(losses.values()) - min(losses.values()) > 1e-2 * losses["ours"]:
        raise AssertionError(f"the sides are not the same function: {losses}")
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, step in steps.items():
            started = time.perf_counter()
            step()
            times[side].append(1000 * (time.perf_counter() - started))
    ours, what = median(times["ours"]), f"step, CPU, {precision}, {config.patch}³"
    return [
        _row(what, side, median(values), ours, step_memory(side, config, precision) / 2**20, f"loss {losses[side]:.5f}")
        for side, values in times.items()
    ]


def make_side(side: str, config: ModelConfig, precision: Precision) -> torch.nn.Module:
    """A side's network where a training would place it; MONAI's as MONAI leaves it."""
    ours = our_network(config)
    if side == "MONAI one-hot":
        return with_our_weights(OneHotNetwork(config), ours)
    return EmbeddedNetwork(ours) if side == "MONAI embedded" else place(ours, CPU, precision)


def step_memory(side: str, config: ModelConfig, precision: Precision) -> int:
    """Bytes that two steps need at most beyond what a fresh process held before them."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_measure_memory, args=(side, config, precision, queue))
    child.start()
    needed = queue.get(timeout=1800)
    child.join()
    return needed


def _measure_memory(side: str, config: ModelConfig, precision: Precision, queue: Any) -> None:
    step = make_step(make_side(side, config, precision), random_input(config.patch, 1, CPU), precision)
    before = resident_bytes()
    for _ in range(2):
        step()
    queue.put(peak_bytes() - before)


def device_rows(config: ModelConfig | None) -> list[Row]:
    """What `train_device` measures, in this table's columns."""
    if not torch.cuda.is_available():
        return [_row("step, GPU", "all", note="not measured: this machine has no CUDA device")]
    device = torch.device("cuda")
    measured = measure(list(variants()), device, time.monotonic() + DEVICE_SECONDS, config)
    return [_device_row(row) for row in measured]


def _device_row(row: Row) -> Row:
    what = f"step, GPU, {row['model']}, {row['precision']}, batch {row['batch']}, {row['how']}"
    if row["ms"] is None:
        return _row(what, row["side"], note=row["note"])
    share = f"{row['of_peak']:.0%} of the peak" if row["of_peak"] else f"{row['of_matmul']:.0%} of a matmul"
    return _row(what, row["side"], row["ms"] / row["batch"], None, 1024 * row["gb"], share)


def _row(
    what: str, side: str, ms: float | None = None, ours: float | None = None, mb: float | None = None, note: str = ""
) -> Row:
    per_s, over = (1000 / ms if ms else None), (ms / ours if ms and ours else None)
    return {"what": what, "side": side, "ms": ms, "per_s": per_s, "over_ours": over, "MB": mb, "note": note}
