"""Geometry: how an array's voxels lie in the patient.

Every triple is in z, y, x order. The world is LPS (+x left, +y posterior, +z superior) in millimetres, so a world
point here is (z, y, x) as well. `origin_mm` is the centre of voxel 0, 0, 0; column k of `direction` is the world
direction of array axis k.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Triple = tuple[float, float, float]
IDENTITY: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def distances_mm(shape: Sequence[int], centre_zyx: ArrayLike, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """How far in mm every voxel (z, y, x) of a grid lies from a voxel index."""
    axes = zip(shape, np.asarray(centre_zyx), spacing_mm, strict=True)
    z, y, x = (((np.arange(length) - index) * step) ** 2 for length, index, step in axes)
    return np.sqrt(z[:, None, None] + y[:, None] + x)


@dataclass(frozen=True)
class Geometry:
    """Shape, spacing in mm, origin in mm and direction of a volume, all in z, y, x order."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple = (0.0, 0.0, 0.0)
    direction: tuple[Triple, Triple, Triple] = IDENTITY

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3×3: a step of one voxel along each array axis, in mm of the world (columns)."""
        return np.asarray(self.direction, float) * np.asarray(self.spacing_mm, float)

    @property
    def is_axis_aligned(self) -> bool:
        """True where array axes run along +z, +y, +x of the world (stored volumes are)."""
        return bool(np.allclose(self.direction, IDENTITY, atol=1e-6))

    def world(self, index_zyx: ArrayLike) -> NDArray[np.float64]:
        """World points (…, 3) in mm of continuous voxel indices (…, 3)."""
        return np.asarray(index_zyx, float) @ self.matrix.T + np.asarray(self.origin_mm, float)

    def index(self, world_zyx: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel indices (…, 3) of world points (…, 3) in mm; the inverse of `world`."""
        return (np.asarray(world_zyx, float) - np.asarray(self.origin_mm, float)) @ np.linalg.inv(self.matrix).T

    def corners(self) -> NDArray[np.float64]:
        """World points (8, 3) in mm of the centres of the eight corner voxels."""
        last = np.asarray(self.shape, float) - 1
        return self.world(np.stack(np.meshgrid(*[(0.0, n) for n in last], indexing="ij"), -1).reshape(8, 3))

    def to_dict(self) -> dict[str, list]:
        """JSON-ready; `Geometry.from_dict` is the inverse."""
        return {
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "origin_mm": list(self.origin_mm),
            "direction": [list(row) for row in self.direction],
        }

    @classmethod
    def from_dict(cls, values: dict) -> "Geometry":
        """The geometry that `to_dict` wrote."""
        z, y, x = values["shape"]
        rows = [_triple(row) for row in values["direction"]]
        return cls(
            (int(z), int(y), int(x)),
            _triple(values["spacing_mm"]),
            _triple(values["origin_mm"]),
            (rows[0], rows[1], rows[2]),
        )


def _triple(values: Sequence[float]) -> Triple:
    a, b, c = values
    return float(a), float(b), float(c)
