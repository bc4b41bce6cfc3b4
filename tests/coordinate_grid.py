"""Coordinates laid out on their voxels, as peers take them."""

import torch
from torch import Tensor

from training.conditioning import Axes


def coordinate_grid(coordinates_BN: Axes) -> Tensor:
    """z, y and x of every voxel, (B, 3, Z, Y, X), from what they are along their axes."""
    z, y, x = coordinates_BN
    return torch.stack(torch.broadcast_tensors(z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]), 1)
