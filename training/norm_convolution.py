"""Group norm, SiLU and convolution as one step that keeps its input only.

Autograd keeps the input of the norm, of the SiLU and of the convolution, under CUDA's autocast the first two in
float32. Here the norm and the SiLU are computed again when the gradient comes: they cost little beside a convolution.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

aten = torch.ops.aten


def norm_convolution(norm: nn.GroupNorm, conv: nn.Conv3d, parts: Sequence[Tensor], recompute: bool) -> Tensor:
    """conv(silu(norm(concatenated parts))); with `recompute` only the parts are kept for the backward pass."""
    if not (recompute and torch.is_grad_enabled()):
        return conv(functional.silu(norm(joined(parts))))
    device = parts[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else parts[0].dtype
    learned = [getattr(module, name).to(dtype) for module in (norm, conv) for name in ("weight", "bias")]
    with torch.autocast(device, enabled=False):
        return _NormConvolution.apply(norm.num_groups, norm.eps, conv.padding, *learned, *[p.to(dtype) for p in parts])


class _NormConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        groups: int,
        eps: float,
        padding: tuple[int, ...],
        scale_C: Tensor,
        shift_C: Tensor,
        weight: Tensor,
        bias: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        x = _dense(joined(parts))
        normed, _, _ = aten.native_group_norm(x, scale_C, shift_C, *_sizes(x), groups, eps)
        ctx.save_for_backward(scale_C, shift_C, weight, *parts)
        ctx.groups, ctx.eps, ctx.padding = groups, eps, padding
        return functional.conv3d(functional.silu(normed, inplace=True), weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        scale_C, shift_C, weight, *parts = ctx.saved_tensors
        x = _dense(joined(parts))
        normed, mean, rstd = aten.native_group_norm(x, scale_C, shift_C, *_sizes(x), ctx.groups, ctx.eps)
        grad, grad_weight, grad_bias = aten.convolution_backward(
            grad_output,
            functional.silu(normed),
            weight,
            [weight.shape[0]],
            [1, 1, 1],
            ctx.padding,
            [1, 1, 1],
            False,
            [0, 0, 0],
            1,
            [True, *ctx.needs_input_grad[5:7]],
        )
        grad = aten.silu_backward(grad, normed)
        grad, grad_scale, grad_shift = aten.native_group_norm_backward(
            _dense(grad, like=x), x, mean, rstd, scale_C, *_sizes(x), ctx.groups, [True, True, True]
        )
        split = grad.split([part.shape[1] for part in parts], 1)
        return None, None, None, grad_scale, grad_shift, grad_weight, grad_bias, *split


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The concatenation along the channels; the part itself where there is one."""
    return torch.cat(list(parts), 1) if len(parts) > 1 else parts[0]


def _dense(x: Tensor, like: Tensor | None = None) -> Tensor:
    """In the memory order that the kernels of the norm take: on a CPU also channels last."""
    last = (x if like is None else like).is_contiguous(memory_format=torch.channels_last_3d)
    keep = last and x.device.type == "cpu"
    return x.contiguous(memory_format=torch.channels_last_3d if keep else torch.contiguous_format)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], x[0, 0].numel()
