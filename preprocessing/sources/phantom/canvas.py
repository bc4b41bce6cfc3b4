"""The canvas on which a phantom is painted: a scan's voxels in body coordinates, a label map and Hounsfield values.

Body coordinates are (z, y, x) in mm of a standard adult, z up from the hip joints, +y to the back, +x to the patient's
left; pose, size and a smooth individual warp lie between them and the scan's grid. Solids are signed distance fields in
mm (negative inside) over a box of the grid. Painting mixes Hounsfield values by the share of the voxel that a solid
covers (partial volume), while a label needs the voxel's centre. Once the skin is known, nothing is painted outside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preprocessing.anatomy import class_ids
from preprocessing.sources.phantom.patient import Scan

Box = tuple[slice, slice, slice]
Layers = Sequence[tuple[float, float]]
OUTSIDE_MM = 60.0


def slices(start: Sequence[int] | NDArray, stop: Sequence[int] | NDArray) -> Box:
    """The box from start (z, y, x) up to stop."""
    z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return z, y, x


class Field(NamedTuple):
    """Signed distance in mm (negative inside) over a box of the canvas."""

    box: Box
    mm: NDArray[np.float32]

    def clip(self, other: NDArray[np.float32]) -> "Field":
        """The intersection with another distance over the same box."""
        return Field(self.box, np.maximum(self.mm, other))

    def over(self, box: Box) -> "Field":
        """The same distances over another box; far outside where they are not known."""
        mm = np.full([s.stop - s.start for s in box], OUTSIDE_MM, np.float32)
        low = [max(a.start, b.start) for a, b in zip(self.box, box, strict=True)]
        high = [max(min(a.stop, b.stop), start) for a, b, start in zip(self.box, box, low, strict=True)]
        into, out_of = (
            tuple(slice(s - own.start, e - own.start) for s, e, own in zip(low, high, owner, strict=True))
            for owner in (box, self.box)
        )
        mm[into] = self.mm[out_of]
        return Field(box, mm)


@dataclass(frozen=True)
class Canvas:
    """A grid of voxels: body coordinates `z`, `y`, `x` in mm, class ids `labels` and Hounsfield values `hu`."""

    z: NDArray[np.float32]
    y: NDArray[np.float32]
    x: NDArray[np.float32]
    labels: NDArray[np.uint8]
    hu: NDArray[np.float32]
    to_index: NDArray[np.float64]
    first: NDArray[np.float64]
    edge_mm: float
    organs: dict[str, Field]

    @property
    def whole(self) -> Box:
        """The box that holds every voxel."""
        return slices((0, 0, 0), self.hu.shape)

    def bounds(self, centre_N3: ArrayLike, half_N3: ArrayLike) -> tuple[NDArray, NDArray]:
        """First and stop indices (N, 3) of the voxels around body boxes given by centre and half size in mm."""
        half = np.asarray(half_N3, float) + WARP_MM + self.edge_mm
        centre = (np.asarray(centre_N3, float) - self.first) @ self.to_index.T
        reach = half @ np.abs(self.to_index).T
        start = np.clip(np.floor(centre - reach), 0, self.hu.shape).astype(int)
        stop = np.clip(np.ceil(centre + reach) + 1, 0, self.hu.shape).astype(int)
        return start, np.maximum(stop, start)

    def box(self, centre: ArrayLike, half: ArrayLike) -> Box:
        """The box of voxels around one body box."""
        start, stop = self.bounds(centre, half)
        return slices(start, stop)

    def at(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Body coordinates z, y, x in mm of a box."""
        return self.z[box], self.y[box], self.x[box]

    def paint(self, field: Field, layers: Layers, label: str = "", only: NDArray | None = None) -> None:
        """Fill a solid with layers of (depth in mm, HU) from outside in; name its voxels `label`, "" = as they are.

        `only` (bool, over the field's box) restricts both.
        """
        box, mm = field
        if not mm.size:
            return
        if "skin" in self.organs:
            mm = np.maximum(mm, self.organs["skin"].mm[box] + SKIN_MM)
        hu = self.hu[box]
        for depth, value in layers:
            share = np.clip(np.float32(0.5) - (mm + np.float32(depth)) / np.float32(self.edge_mm), 0, 1)
            if only is not None:
                share *= only
            hu += share * (np.float32(value) - hu)
        if label:
            inside = mm < 0 if only is None else (mm < 0) & only
            self.labels[box][inside] = class_ids()[label]


WARP_MM = 6.0
SKIN_MM = 2.0
_WAVES_MM = ((290.0, 2.8), (110.0, 1.6))


def make_canvas(scan: Scan) -> Canvas:
    """An empty canvas (air, background) for a scan: its grid seen from inside the posed and warped patient."""
    shape = scan.geometry.shape
    spacing = np.asarray(scan.geometry.spacing_mm)
    step = (scan.rotation / np.asarray(scan.patient.scale)[:, None]) * spacing
    first = np.asarray(scan.centre_mm) - step @ ((np.asarray(shape) - 1) / 2)
    axes = [np.arange(n, dtype=np.float64) for n in shape]
    grids = [
        (first[k] + step[k, 0] * axes[0]).astype(np.float32)[:, None, None]
        + (step[k, 1] * axes[1]).astype(np.float32)[:, None]
        + (step[k, 2] * axes[2]).astype(np.float32)
        for k in range(3)
    ]
    _warp(scan, grids, [first[k] + step[k, k] * axes[k] for k in range(3)])
    return Canvas(
        *grids,
        labels=np.zeros(shape, np.uint8),
        hu=np.full(shape, -1000, np.float32),
        to_index=np.linalg.inv(step),
        first=first,
        edge_mm=float(np.mean(spacing[1:])) * 1.2,
        organs={},
    )


def _warp(scan: Scan, grids: Sequence[NDArray[np.float32]], axes_mm: Sequence[NDArray[np.float64]]) -> None:
    """Displace the grids by waves that make this patient's organs their own; the same in every scan."""
    rng = np.random.default_rng(scan.patient.warp_seed)
    wave = np.empty_like(grids[0])
    for grid in grids:
        for length, amplitude in _WAVES_MM:
            z, y, x = (
                np.sin(mm * (2 * np.pi / (length * rng.uniform(0.8, 1.2))) + rng.uniform(0, 2 * np.pi))
                for mm in axes_mm
            )
            plane = (amplitude * z[:, None] * y).astype(np.float32)
            np.multiply(plane[:, :, None], x.astype(np.float32), out=wave)
            grid += wave


def ellipsoid(canvas: Canvas, centre: ArrayLike, radii: ArrayLike, axes: NDArray[np.float64] | None = None) -> Field:
    """An ellipsoid; the rows of `axes` are its own axes in body coordinates (default: z, y, x)."""
    centre, radii = np.asarray(centre, float), np.asarray(radii, float)
    turn = np.eye(3) if axes is None else axes
    box = canvas.box(centre, np.sqrt(((turn.T * radii) ** 2).sum(1)))
    offsets = [grid - np.float32(c) for grid, c in zip(canvas.at(box), centre, strict=True)]
    near = np.zeros(offsets[0].shape, np.float32)
    slope = np.zeros_like(near)
    for row, radius in zip(turn, radii, strict=True):
        along = sum(np.float32(w / radius) * o for w, o in zip(row, offsets, strict=True) if w)
        square = along * along
        near += square
        slope += square * np.float32(1 / radius**2)
    k = np.sqrt(near)
    return Field(box, k * (k - 1) / np.sqrt(slope + np.float32(1e-9)))


def tube(canvas: Canvas, points: ArrayLike, stretch: Sequence[float] = (1, 1, 1)) -> Field:
    """A tube through points (N, 4) of z, y, x, radius in mm; `stretch` widens its section along z, y, x."""
    path = np.asarray(points, float)
    return tubes(canvas, path[:-1], path[1:], stretch)


def tubes(canvas: Canvas, starts_N4: ArrayLike, ends_N4: ArrayLike, stretch: Sequence[float] = (1, 1, 1)) -> Field:
    """The union of round cones from starts to ends, each row z, y, x, radius in mm."""
    a, b = np.asarray(starts_N4, float), np.asarray(ends_N4, float)
    wide = np.asarray(stretch, float)
    low, high = np.minimum(a, b)[:, :3], np.maximum(a, b)[:, :3]
    half = (high - low) / 2 + np.maximum(a[:, 3:], b[:, 3:]) * wide
    start, stop = canvas.bounds((low + high) / 2, half)
    full = np.all(stop > start, axis=1)
    if not full.any():
        return Field(slices((0, 0, 0), (0, 0, 0)), np.zeros((0, 0, 0), np.float32))
    start, stop, a, b = start[full], stop[full], a[full], b[full]
    first, last = start.min(0), stop.max(0)
    mm = np.full(last - first, OUTSIDE_MM, np.float32)
    for i in range(len(a)):
        box, inner = slices(start[i], stop[i]), slices(start[i] - first, stop[i] - first)
        np.minimum(mm[inner], _cone(canvas.at(box), a[i], b[i], wide), out=mm[inner])
    return Field(slices(first, last), mm)


def _cone(grid: Sequence[NDArray[np.float32]], a: NDArray, b: NDArray, wide: NDArray) -> NDArray[np.float32]:
    from_a = [(g - np.float32(c)) * np.float32(1 / w) for g, c, w in zip(grid, a, wide, strict=False)]
    along = (b[:3] - a[:3]) / wide
    length = float(along @ along)
    if length < 1e-9:
        return np.sqrt(sum(p * p for p in from_a)) - np.float32(a[3])
    share = sum(p * np.float32(d / length) for p, d in zip(from_a, along, strict=True))
    share = np.clip(share, 0, 1)
    square = sum((p - share * np.float32(d)) ** 2 for p, d in zip(from_a, along, strict=True))
    return np.sqrt(square) - (np.float32(a[3]) + share * np.float32(b[3] - a[3]))


def turned(roll: float = 0, tilt: float = 0, yaw: float = 0) -> NDArray[np.float64]:
    """Axes (rows z, y, x) turned by degrees about z (roll), x (tilt) and y (yaw)."""
    a, b, c = np.radians((roll, tilt, yaw))
    about_z = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_x = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(c), 0, -np.sin(c)], [0, 1, 0], [np.sin(c), 0, np.cos(c)]])
    return about_z @ about_x @ about_y
