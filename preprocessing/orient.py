"""Turning: the same voxels with their axes permuted and flipped, so that they run nearest to another direction.

Turning is exact (no voxel is touched); what rotation or shear remains is left to resampling.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preprocessing.geometry import IDENTITY, Geometry


@dataclass(frozen=True)
class Turn:
    """`order[a]` is the old axis that becomes axis a; `flips` are the new axes that run backwards."""

    order: tuple[int, int, int]
    flips: tuple[int, ...]

    def array(self, array: NDArray) -> NDArray:
        """A view of an array (old axes) along the new axes."""
        return np.flip(array.transpose(self.order), self.flips)

    def geometry(self, geometry: Geometry) -> Geometry:
        """The geometry of a turned array: every voxel keeps its place in the world."""
        order = list(self.order)
        shape = np.asarray(geometry.shape)[order]
        signs = np.where(np.isin(np.arange(3), self.flips), -1.0, 1.0)
        corner = np.zeros(3)
        corner[[order[a] for a in self.flips]] = [shape[a] - 1 for a in self.flips]
        direction = np.asarray(geometry.direction)[:, order] * signs + 0.0
        return replace(
            geometry,
            shape=tuple(shape.tolist()),
            spacing_mm=tuple(geometry.spacing_mm[a] for a in order),
            origin_mm=tuple(geometry.world(corner).tolist()),
            direction=tuple(tuple(row) for row in direction.tolist()),
        )


def turn_towards(geometry: Geometry, direction: ArrayLike = IDENTITY) -> Turn:
    """The turn after which the axes run nearest to the columns of `direction` (default: +z, +y, +x of the world)."""
    share = np.linalg.inv(np.asarray(direction, float)) @ np.asarray(geometry.direction)
    left = np.abs(share)
    order, signs = [0, 0, 0], [1.0, 1.0, 1.0]
    for _ in range(3):
        axis, old = np.unravel_index(int(left.argmax()), left.shape)
        order[axis], signs[axis] = int(old), float(share[axis, old])
        left[axis, :], left[:, old] = -1, -1
    return Turn((order[0], order[1], order[2]), tuple(a for a in range(3) if signs[a] < 0))
