"""The 3³ convolution of channels that vary along one axis only, without laying those channels down.

A channel f(z) that is zero outside the volume gives, at (z, y, x),
Σ_k f(z + k − 1) · Σ_{l, m inside} w_klm: for each place along z nine numbers, of which those taps (l, m) are summed
that lie inside. The same holds for y and x. All three together are one product of matrices whose inner length is 12,
where the plain convolution of 39 channels needs 27 · 39 products a voxel.

Letters: B batch, C channels of one axis, O channels out, N voxels of an axis; k, l, m the taps along z, y, x.
"""

import torch
from torch import Tensor
from torch.nn import functional


def position_convolution(weight_OCklm: Tensor, axes_BCN: tuple[Tensor, ...]) -> Tensor:
    """The convolution (B, O, Z, Y, X), padded with zeros, of the channels that `encode_position` makes of three axes.

    `axes_BCN` holds what it makes of each axis alone.
    """
    with torch.autocast(weight_OCklm.device.type, enabled=False):
        weights = _by_axis(weight_OCklm.float())
        z, y, x = (_responses(w, f, a) for a, (w, f) in enumerate(zip(weights, axes_BCN, strict=True)))
        inside_z, inside_y, inside_x = (_inside(axis) for axis in axes_BCN)
        # what multiplies the taps of x that are inside, by (z, y): the responses of z and y
        left = torch.einsum("bozlm,ly->bozym", z, inside_y) + torch.einsum("boykm,kz->bozym", y, inside_z)
        # and the responses of x, multiplied by the taps of z and y that are inside
        taps = torch.einsum("kz,ly->zykl", inside_z, inside_y)
        columns = x.permute(0, 1, 3, 4, 2).flatten(2, 3)
    left = torch.cat([left, taps.flatten(2).expand(*left.shape[:4], 9)], -1).flatten(2, 3)
    right = torch.cat([inside_x.expand(*columns.shape[:2], 3, -1), columns], 2)
    return (left @ right).unflatten(2, (axes_BCN[0].shape[2], axes_BCN[1].shape[2]))


def _by_axis(weight_OCklm: Tensor) -> list[Tensor]:
    """The part of a weight that belongs to z, to y and to x: coordinate, sines and cosines."""
    coordinate, sine, cosine = weight_OCklm.tensor_split([3, 3 + (weight_OCklm.shape[1] - 3) // 2], 1)
    parts = zip(*(part.tensor_split(3, 1) for part in (coordinate, sine, cosine)), strict=True)
    return [torch.cat(part, 1) for part in parts]


def _responses(weight_OCklm: Tensor, channels_BCN: Tensor, axis: int) -> Tensor:
    """Σ_c Σ_tap f_c(n + tap − 1) w_c,tap,… along one axis: (B, O, N, 3, 3), the taps of the other two axes last."""
    moved = weight_OCklm.movedim(2 + axis, 2)
    kernel = moved.permute(0, 3, 4, 1, 2).flatten(0, 2)
    answer = functional.conv1d(channels_BCN.float(), kernel, padding=1)
    return answer.unflatten(1, (-1, 3, 3)).movedim(-1, 2)


def _inside(channels_BCN: Tensor) -> Tensor:
    """(3, N): whether a tap at a place lies inside the volume."""
    length = channels_BCN.shape[2]
    place = torch.arange(length, device=channels_BCN.device)
    seen = place + torch.arange(-1, 2, device=place.device)[:, None]
    return ((seen >= 0) & (seen < length)).float()
