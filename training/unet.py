"""How MONAI's U-Net and ControlNet are evaluated here: the same layers and values, less time and memory.

Three things differ from MONAI's own `forward`; each gives the values that it gives, but for rounding.

* The first convolution does not see the position channels: what they contribute is a sum of small products, because
  each of them varies along one axis only.
* An enlarged volume is convolved by eight small kernels on the voxels that it was made of, and never laid down.
* The norm and the SiLU before a convolution are made again in the backward pass, not kept (`Activations`).

Letters: B batch, C or O channels; Z Y X space; N the voxels of one axis; L frequencies.
"""

from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.conditioning import Encoded
from training.config import Activations
from training.norm_convolution import joined, norm_convolution
from training.position_convolution import position_convolution

CHECKPOINTED_LEVELS = 2  # of the finest; the others hold little


@dataclass(frozen=True)
class Descent:
    """What the way down leaves: every skip, finest first; what left the middle; the time and region embedding."""

    skips: list[Tensor]
    middle: Tensor
    embedding_BC: Tensor


def encode(
    unet: Any,
    encoded: Encoded,
    t_B: Tensor,
    region_B: Tensor,
    activations: Activations,
    added_BCZYX: Tensor | None = None,
) -> Descent:
    """The way down and the middle of a U-Net or a ControlNet; what is `added` joins after the first convolution."""
    embedding = unet.time_embed(get_timestep_embedding(t_B, unet.block_out_channels[0])) + unet.class_embedding(
        region_B
    )
    h = first_convolution(unet.conv_in.conv, encoded)
    h = h if added_BCZYX is None else h + added_BCZYX
    skips = [h]
    for level, block in enumerate(unet.down_blocks):
        for number, resnet in enumerate(block.resnets):
            h = _residual_block(resnet, (h,), embedding, level, activations)
            h = _attend(block, number, h, encoded)
            skips.append(h)
        if block.downsampler is not None:
            h = block.downsampler(h)
            skips.append(h)
    middle, level = unet.middle_block, len(unet.down_blocks)
    h = _residual_block(middle.resnet_1, (h,), embedding, level, activations)
    h = middle.attention(h, context=encoded.context_B1D)
    h = _residual_block(middle.resnet_2, (h,), embedding, level, activations)
    return Descent(skips, h, embedding)


def decode(unet: Any, encoded: Encoded, descent: Descent, activations: Activations) -> Tensor:
    """The way up: ε̂."""
    skips, h = list(descent.skips), descent.middle
    for height, block in enumerate(unet.up_blocks):
        level = len(unet.up_blocks) - 1 - height
        for number, resnet in enumerate(block.resnets):
            h = _residual_block(resnet, (h, skips.pop()), descent.embedding_BC, level, activations)
            h = _attend(block, number, h, encoded)
        if block.upsampler is not None:
            h = convolve_enlarged(block.upsampler.postconv.conv, h)
    norm, _, convolution = unet.out
    return norm_convolution(norm, convolution.conv, (h,), activations != "keep")


def first_convolution(conv: nn.Conv3d, encoded: Encoded) -> Tensor:
    """The 3³ convolution of all channels: x_t, anatomy, position, in the order of its weight."""
    seen = encoded.volume_BCZYX.shape[1]
    h = functional.conv3d(encoded.volume_BCZYX, conv.weight[:, :seen], conv.bias, padding=1)
    return h + position_convolution(conv.weight[:, seen:], encoded.axes_BCN).to(h) if encoded.axes_BCN else h


def convolve_enlarged(conv: nn.Conv3d, h: Tensor) -> Tensor:
    """The 3³ convolution of `h` (B, C, Z, Y, X) enlarged twofold by repeating voxels: (B, O, 2Z, 2Y, 2X).

    Along an axis an output voxel of even place sees two voxels of `h`, the nearer one with the sum of two taps; one of
    odd place likewise, mirrored. So all are found by one 2³ convolution to eight times the channels.
    """
    taps_PK3 = conv.weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    kernel = torch.einsum("oczyx,pkz,qly,rmx->pqrocklm", conv.weight, taps_PK3, taps_PK3, taps_PK3)
    bias = None if conv.bias is None else conv.bias.repeat(8)
    phases = functional.conv3d(h, kernel.flatten(0, 3), bias, padding=1)
    depth, height, width = h.shape[2:]
    phases = phases.unflatten(1, (2, 2, 2, -1))
    out = phases.new_empty(len(h), phases.shape[4], depth, 2, height, 2, width, 2)
    for p, q, r in ((p, q, r) for p in range(2) for q in range(2) for r in range(2)):
        out[:, :, :, p, :, q, :, r] = phases[:, p, q, r, :, p : p + depth, q : q + height, r : r + width]
    return out.reshape(len(h), -1, 2 * depth, 2 * height, 2 * width)


def _residual_block(
    block: Any, parts: tuple[Tensor, ...], embedding: Tensor, level: int, activations: Activations
) -> Tensor:
    """MONAI's residual block on the concatenation of `parts`, which is not laid down for the skip connection."""
    if activations == "checkpoint" and level < CHECKPOINTED_LEVELS and torch.is_grad_enabled():
        return checkpoint(_residual, block, parts, embedding, True, use_reentrant=False)
    return _residual(block, parts, embedding, activations != "keep")


def _residual(block: Any, parts: tuple[Tensor, ...], embedding: Tensor, recompute: bool) -> Tensor:
    h = norm_convolution(block.norm1, block.conv1.conv, parts, recompute)
    h = h + block.time_emb_proj(functional.silu(embedding))[:, :, None, None, None]
    h = norm_convolution(block.norm2, block.conv2.conv, (h,), recompute)
    return h + _skip(block.skip_connection, parts)


def _skip(connection: Any, parts: tuple[Tensor, ...]) -> Tensor:
    """The 1³ convolution of the concatenated parts as a sum over them; the part itself where there is none."""
    if isinstance(connection, nn.Identity):
        return joined(parts)
    conv = connection.conv
    weights = conv.weight.split([part.shape[1] for part in parts], 1)
    biases = [conv.bias] + [None] * (len(parts) - 1)
    terms = [functional.conv3d(p, w, b) for p, w, b in zip(parts, weights, biases, strict=True)]
    return sum(terms[1:], terms[0])


def _attend(block: Any, number: int, h: Tensor, encoded: Encoded) -> Tensor:
    return block.attentions[number](h, context=encoded.context_B1D) if hasattr(block, "attentions") else h
