"""The three conditions of the model: region class, anatomy map and position (SPEC §3.2).

Anatomy and position become channels that are concatenated with x_t; the region becomes the cross-attention context and
a class label. Coordinates are always computed from where a crop lies on its region's canvas, never resampled.

Letters: B batch, C channels, D context width, L frequencies; Z Y X space.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from preprocessing.anatomy import NUM_IDS, UNKNOWN
from preprocessing.regions import REGIONS
from training.config import ModelConfig

NULL_REGION = len(REGIONS)
BIT_PLANES = 8
Axes = tuple[Tensor, Tensor, Tensor]  # one tensor along z, one along y, one along x


@dataclass(frozen=True)
class Conditions:
    """What the network is told beside x_t.

    `region_B` int64, an index into REGIONS or NULL_REGION; `anatomy_BZYX` ids 0-119, 119 = unknown (any integer type);
    `coordinates_BN` float32 on [-1, 1]: (B, Z), (B, Y) and (B, X), since each coordinate varies along its axis only.
    """

    region_B: Tensor
    anatomy_BZYX: Tensor
    coordinates_BN: Axes

    def to(self, device: torch.device | str) -> "Conditions":
        """The same conditions on another device."""
        return self.each(lambda tensor: tensor.to(device))

    def each(self, move: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same conditions, every tensor of them moved."""
        z, y, x = (move(axis) for axis in self.coordinates_BN)
        return Conditions(move(self.region_B), move(self.anatomy_BZYX), (z, y, x))

    def without_region(self) -> "Conditions":
        """Region null everywhere, as classifier-free guidance needs it."""
        return replace(self, region_B=torch.full_like(self.region_B, NULL_REGION))

    def without_anatomy(self) -> "Conditions":
        """The whole map unknown, as a CT without labels is seen."""
        return replace(self, anatomy_BZYX=torch.full_like(self.anatomy_BZYX, UNKNOWN))


def coordinates(
    start_zyx: Sequence[float], step_zyx: Sequence[float], canvas_zyx: Sequence[int], shape_zyx: Sequence[int]
) -> Axes:
    """Coordinates in [-1, 1] of the voxel centres of a crop on its region's canvas, along z, y and x, float32.

    Voxel j of an axis has its centre at the level-0 index i = start + (j + 0.5)·step − 0.5 of a canvas of N voxels, and
    u = 2·(i + 0.5)/N − 1. `start` is where the crop begins on the (padded) canvas, `step` how many level-0 voxels a
    voxel of the crop spans: 1 for a patch, 2 for a wide crop, N/patch for a whole region.
    """
    # numpy: a loader's thread must not start torch's threads beside those of the network
    z, y, x = (
        torch.from_numpy((2 * (start + (np.arange(n) + 0.5) * step) / canvas - 1).astype(np.float32))
        for start, step, canvas, n in zip(start_zyx, step_zyx, canvas_zyx, shape_zyx, strict=True)
    )
    return z, y, x


def stack_axes(crops: Sequence[Axes]) -> Axes:
    """The coordinates of several crops of one shape: (B, Z), (B, Y) and (B, X)."""
    z, y, x = (torch.stack(axis) for axis in zip(*crops, strict=True))
    return z, y, x


def encode_position(coordinates_BA: Tensor, frequencies: int) -> Tensor:
    """γ of NeRF beside the raw coordinates of A axes, each an array (B, A, …): (B, A + 2AL, …).

    γ(u) = [sin(2^k π u), cos(2^k π u)] for k = 0 … L−1 and each axis. Channels: the axes; then the sines, axis by axis
    with k running fastest; then the cosines in the same order.
    """
    k_L = torch.arange(frequencies, device=coordinates_BA.device)
    scale_L = (math.pi * 2.0**k_L).to(coordinates_BA.dtype).reshape(-1, *[1] * (coordinates_BA.ndim - 2))
    angle_BC = (coordinates_BA[:, :, None] * scale_L).flatten(1, 2)
    return torch.cat([coordinates_BA, angle_BC.sin(), angle_BC.cos()], 1)


def encode_axes(coordinates_BN: Axes, frequencies: int) -> Axes:
    """The channels of `encode_position` axis by axis: (B, 1 + 2L, N) along z, along y and along x."""
    z, y, x = (encode_position(axis_BN[:, None], frequencies) for axis_BN in coordinates_BN)
    return z, y, x


@dataclass(frozen=True)
class Encoded:
    """What a network is told, as its layers take it.

    `volume_BCZYX`: x_t and the anatomy's channels; `axes_BCN`: those of the position along z, y and x, none where it is
    not told; `context_B1D`: the region.
    """

    volume_BCZYX: Tensor
    axes_BCN: tuple[Tensor, ...]
    context_B1D: Tensor


class AnatomyEncoder(nn.Module):
    """The anatomy map as channels: a learned embedding, a one-hot code or eight bit-planes (0/1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoding = config.anatomy_encoding
        self.num_channels = {"embed": config.anatomy_channels, "onehot": NUM_IDS, "binary": BIT_PLANES}[self.encoding]
        if self.encoding == "embed":
            self.embedding = nn.Embedding(NUM_IDS, config.anatomy_channels)

    def forward(self, anatomy_BZYX: Tensor) -> Tensor:
        """Channels (B, C, Z, Y, X), float32."""
        ids = anatomy_BZYX.long()
        if self.encoding == "embed":
            return self.embedding(ids).movedim(-1, 1)
        if self.encoding == "onehot":
            return functional.one_hot(ids, NUM_IDS).movedim(-1, 1).float()
        return torch.stack([(ids >> bit) & 1 for bit in range(BIT_PLANES)], 1).float()


class ConditionEncoder(nn.Module):
    """Conditions to what the layers of a network take."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position = config.position
        self.frequencies = config.position_frequencies if config.position == "embedding" else 0
        self.anatomy = AnatomyEncoder(config)
        self.region = nn.Embedding(len(REGIONS) + 1, config.context_dim)
        self.num_channels = self.anatomy.num_channels + (0 if self.position == "none" else 3 + 6 * self.frequencies)

    def forward(self, x_B1ZYX: Tensor, conditions: Conditions) -> Encoded:
        """x_t with its conditions: what the weight of the first convolution takes, in its order."""
        volume = torch.cat([x_B1ZYX, self.anatomy(conditions.anatomy_BZYX).to(x_B1ZYX)], 1)
        axes = () if self.position == "none" else encode_axes(conditions.coordinates_BN, self.frequencies)
        return Encoded(volume, axes, self.region(conditions.region_B)[:, None])
