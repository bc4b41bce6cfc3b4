"""Training steps on a GPU, and what they take: samples a second, share of the card's peak, memory.

Needs torch, MONAI, einops and pydantic only, so that it runs where nothing else is installed:
`python -m benchmarks.train_device FOLDER` (from `tests`, the checkout on PYTHONPATH) writes `train_device.json` and
`.txt` there; `--seconds` bounds it, `--tiny` proves on any machine that it works.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.train_step import (
    EmbeddedNetwork,
    OneHotNetwork,
    Step,
    make_step,
    our_network,
    random_input,
    with_our_weights,
)
from training.config import PRETRAIN_PRESETS, Activations, ModelConfig
from training.precision import Precision

PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}  # dense, data sheets
TINY = ModelConfig(patch=8, channels=(8, 16), attention=(False, True), norm_groups=4, head_channels=8)
WARM, TIMED = 3, 8
Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One way to take a step."""

    model: str = "paper"
    side: str = "ours"
    batch: int = 1
    precision: Precision = "bf16"
    activations: Activations = "recompute"
    channels_last: bool = False
    compiled: bool = False
    search: bool = True  # cuDNN tries its algorithms on the first step

    def __str__(self) -> str:
        words = [self.activations] if self.side == "ours" else []
        words += [word for word in ("channels_last", "compiled") if getattr(self, word)]
        return ", ".join([*words, *([] if self.search else ["no search"])]) or "as it is"


def variants() -> Iterator[Variant]:
    """The most telling first: a bound on the seconds cuts off the rest."""
    one_hot, plain = Variant(side="MONAI one-hot"), Variant(side="MONAI embedded")
    ours, fused = Variant(), Variant(activations="keep", channels_last=True, compiled=True)
    yield from (one_hot, plain, ours, replace(ours, activations="keep"), replace(ours, activations="checkpoint"))
    yield from (replace(one_hot, precision="fp32"), replace(ours, precision="fp32"))
    yield from (replace(v, channels_last=True) for v in (one_hot, ours, replace(ours, activations="keep")))
    yield from (replace(ours, batch=2), replace(ours, batch=4))
    yield from (replace(ours, search=False), replace(one_hot, search=False))
    wide = replace(ours, model="paper-wide")
    yield from (wide, replace(wide, activations="checkpoint"), replace(wide, side="MONAI one-hot"))
    yield fused
    yield replace(fused, channels_last=False)
    yield replace(fused, batch=2)
    yield replace(fused, model="paper-wide")
    yield replace(fused, side="MONAI one-hot")
    yield replace(fused, activations="checkpoint")
    yield replace(fused, batch=4)
    yield one_hot


def measure(
    chosen: Sequence[Variant], device: torch.device, deadline: float, config: ModelConfig | None = None
) -> list:
    """A row per variant; `config` stands for every model, where one is given."""
    rates = {"measured": matmul_rate(device), "stated": stated_peak(device)}
    flops: dict[tuple[str, str], float] = {}
    rows = []
    for variant in chosen:
        row = _row(variant)
        rows.append(row)
        if variant.model not in PRETRAIN_PRESETS and config is None:
            row["note"] = "no such preset"
        elif time.monotonic() > deadline:
            row["note"] = "out of time"
        else:
            try:
                row |= _measured(variant, config or PRETRAIN_PRESETS[variant.model]().model, device, rates, flops)
            except Exception as error:  # noqa: BLE001 - a variant that fails is a finding, the others go on
                row["note"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
        print(as_text([row]).splitlines()[-1], flush=True)
        _forget(device)
    return rows


def _row(variant: Variant) -> Row:
    named = {"model": variant.model, "side": variant.side, "how": str(variant), "batch": variant.batch}
    empty = dict.fromkeys(("ms", "samples_per_s", "tflops", "of_peak", "of_matmul", "gb", "first_s", "loss"))
    return named | {"precision": variant.precision} | empty | {"note": ""}


def _measured(variant: Variant, config: ModelConfig, device: torch.device, rates: dict, flops: dict) -> Row:
    torch.backends.cudnn.benchmark = variant.search
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    given = random_input(config.patch, variant.batch, device)
    kind = variant.model, variant.side.removeprefix("MONAI ")
    if kind not in flops:
        side = "MONAI embedded" if variant.side == "ours" else variant.side
        flops[kind] = _flops(Variant(variant.model, side, precision=variant.precision), config, device)
        _forget(device)
    step = make_step(_network(variant, config, device), given, variant.precision)
    started = time.perf_counter()
    loss = float(step())
    first = time.perf_counter() - started
    for _ in range(WARM - 1):
        step()
    _reset_memory(device)
    seconds = median(_timed(step, device) for _ in range(TIMED))
    rate = variant.batch * flops[kind] / seconds
    return {
        "ms": 1000 * seconds,
        "samples_per_s": variant.batch / seconds,
        "tflops": rate / 1e12,
        "of_peak": rate / rates["stated"] if rates["stated"] else None,
        "of_matmul": rate / rates["measured"],
        "gb": _peak_memory(device) / 2**30,
        "first_s": first,
        "loss": loss,
    }


def _network(variant: Variant, config: ModelConfig, device: torch.device) -> nn.Module:
    network: nn.Module = our_network(config)
    if variant.side == "MONAI one-hot":
        network = with_our_weights(OneHotNetwork(config), network)
    elif variant.side == "MONAI embedded":
        network = EmbeddedNetwork(network)
    else:
        network.activations = variant.activations
    network = network.to(device)
    if variant.channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
    if variant.compiled:
        torch._dynamo.reset()
        network.compile(dynamic=False, backend="inductor" if device.type == "cuda" else "aot_eager")
    return network


def _flops(variant: Variant, config: ModelConfig, device: torch.device) -> float:
    """Of one sample's step by MONAI's forward: what the model asks for, whatever we save of it."""
    step = make_step(_network(variant, config, device), random_input(config.patch, 1, device), variant.precision)
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def matmul_rate(device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a bf16 product of two random square matrices: what the card does at best."""
    size = size if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [_timed(lambda: a @ b, device) for _ in range(8)]
    return 2 * size**3 / median(times[3:])


def stated_peak(device: torch.device) -> float | None:
    """The data sheet's dense bf16 FLOP/s of this card, where it is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((peak for card, peak in PEAK_BF16.items() if card in name), None)


def _timed(work: Step, device: torch.device) -> float:
    _synchronise(device)
    started = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - started


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def as_text(rows: Sequence[Row]) -> str:
    """The rows as a table of fixed columns."""

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    widths = {"model": 10, "side": 14, "how": 34, "what": 34}
    lines = [list(rows[0])] + [[cell(value) for value in row.values()] for row in rows]
    sizes = [widths.get(name, max(9, len(name))) for name in rows[0]]
    return "\n".join("  ".join(text.ljust(size) for text, size in zip(line, sizes, strict=True)) for line in lines)


def main() -> None:
    """Measure, print, and write both forms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    deadline = time.monotonic() + asked.seconds
    about = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "stated_bf16_flops": stated_peak(device),
        "matmul_bf16_flops": matmul_rate(device),
    }
    print(about, flush=True)
    rows = measure(list(variants()), device, deadline, TINY if asked.tiny else None)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "train_device.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    (asked.folder / "train_device.txt").write_text(f"{about}\n{as_text(rows)}\n")


if __name__ == "__main__":
    main()
