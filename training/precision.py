"""Where and in which precision a network computes.

bf16 is used where the hardware computes it and replaced by fp32 where it is emulated: on a CPU with AVX2 only, a bf16
convolution takes two hundred times as long (measured). Parameters, schedule and loss are always float32.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import nn

from infra.settings import WORKER

Precision = Literal["bf16", "fp32"]
Network = TypeVar("Network", bound=nn.Module)


def default_device() -> torch.device:
    """A CUDA device where there is one, else the CPU; several workers of this machine take its devices in turn."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    worker = os.environ.get(WORKER, "")
    return torch.device(f"cuda:{int(worker) % torch.cuda.device_count()}" if worker.isdecimal() else "cuda")


def effective_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision that is asked for, or fp32 where the device has no fast bf16."""
    return "bf16" if precision == "bf16" and _has_bfloat16(device) else "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast context of a precision on a device; a disabled one where it falls back to fp32."""
    enabled = effective_precision(precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def place(network: Network, device: torch.device, precision: Precision = "bf16", compiled: bool = False) -> Network:
    """The network on a device, in the memory order that is fastest there.

    Measured: channels last for fp32 on a CPU, and on an H100 for bf16 where the network will be compiled.
    """
    last = compiled if device.type == "cuda" else effective_precision(precision, device) == "fp32"
    if last:
        network = network.to(memory_format=torch.channels_last_3d)  # ty: ignore[no-matching-overload]
    return network.to(device)


@contextmanager
def cpu_threads(count: int) -> Generator[None]:
    """This many CPU threads for torch inside the block; 0 leaves them as they are.

    Sums are split over the threads, so a network's answer depends on their number in its last digits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False
