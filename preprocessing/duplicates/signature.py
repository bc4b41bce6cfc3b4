"""The signature: the neighbourhoods of a volume's most striking points, by which its copies are found among thousands.

It is taken from the pyramid level nearest to 4 mm, windowed to soft tissue. A point is a local extremum of a
band-passed volume; its neighbourhood, 4x4x4 samples, is turned so that mirrored copies look the same, and kept with 4
bits a sample, beside its place and how it was turned. Points are spread along z, so that a part of a scan has some of
the whole's. A second set comes from the volume stretched to a cube: a copy that lost its spacing has the same.
"""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.pyramid import resize_weights

COARSE_MM = 4.0
WINDOW_HU = (-150, 250)
CUBE = 48  # edge of the stretched volume
POINTS = (53, 27)  # at most so many of the volume and of the cube: 4 KB of text
SLAB = 6  # voxels along z that share out the points
FINE, BROAD = 1.5, 3.0  # voxels: Gaussians of the band-pass
OFFSETS = np.array([-3.0, -1.0, 1.0, 3.0])  # voxels: samples of a neighbourhood along each axis
MARGIN = 2
SAMPLES = 64
STEP = 0.4  # of a standard deviation: one of 16 levels
RECORD = np.dtype([("turned", "u1"), ("z", "<u2"), ("y", "u1"), ("x", "u1"), ("levels", "u1", SAMPLES // 2)])


def coarse_level(spacing_mm: float, levels: int) -> int:
    """The pyramid level nearest to 4 mm, of `levels` whose finest has this spacing."""
    return min(levels - 1, max(0, round(float(np.log2(COARSE_MM / spacing_mm)))))


@dataclass(frozen=True)
class Points:
    """Striking points of a volume: levels 0 to 15 (points, 64), places (points, 3) in voxels z y x, and 1 or -1 per
    axis (points, 3): whether the neighbourhood was mirrored along it."""

    levels: NDArray[np.uint8]
    places: NDArray[np.int16]
    turns: NDArray[np.int8]


def signature(image: NDArray[np.int16]) -> str:
    """The signature of a volume (int16 HU, z y x, at about 4 mm): text of at most 4 KB."""
    volume = np.clip(image, *WINDOW_HU).astype(np.float32)
    own, stretched = (_points(v, n) for v, n in zip((volume, _stretched(volume)), POINTS, strict=True))
    return base64.b64encode(len(own).to_bytes(1, "big") + own.tobytes() + stretched.tobytes()).decode()


def read_signature(text: str) -> tuple[Points, Points]:
    """The points of the volume, and those of the volume stretched to a cube."""
    data = base64.b64decode(text)
    records: Any = np.frombuffer(data, RECORD, offset=1)
    packed = records["levels"]
    levels = np.stack([packed >> 4, packed & 15], axis=2).reshape(-1, SAMPLES)
    places = np.stack([records[axis] for axis in "zyx"], axis=1).astype(np.int16)
    turns = np.where(records["turned"][:, None] >> np.arange(3) & 1, -1, 1).astype(np.int8)
    own = slice(data[0]), slice(data[0], None)
    first, second = (Points(levels[part], places[part], turns[part]) for part in own)
    return first, second


def _stretched(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in range(3):
        weights = resize_weights(volume.shape[axis], CUBE)
        volume = np.moveaxis(np.tensordot(weights, volume, (1, axis)), 0, axis)
    return volume


def _points(volume: NDArray[np.float32], count: int) -> NDArray:
    """RECORDs of at most `count` points, the most striking first."""
    smooth = ndimage.gaussian_filter(volume, FINE, mode="nearest")
    places = _places(smooth - ndimage.gaussian_filter(volume, BROAD, mode="nearest"), count)
    records: Any = np.zeros(len(places), RECORD)
    if not len(places):
        return records
    around = np.stack(np.meshgrid(OFFSETS, OFFSETS, OFFSETS, indexing="ij")).reshape(3, 1, -1)
    samples = ndimage.map_coordinates(smooth, places.T[:, :, None] + around, order=1, mode="nearest")
    samples, records["turned"] = _turned(samples.reshape(-1, 4, 4, 4))
    samples = samples.reshape(-1, SAMPLES)
    samples -= samples.mean(1, keepdims=True)
    samples /= np.maximum(samples.std(1, keepdims=True), 1e-3)
    levels = np.clip(np.rint(samples / STEP) + 8, 0, 15).astype(np.uint8)
    records["levels"] = (levels[:, ::2] << 4) | levels[:, 1::2]
    for axis, name in enumerate("zyx"):
        records[name] = np.rint(places[:, axis])
    return records


def _places(band: NDArray[np.float32], count: int) -> NDArray[Any]:
    """(points, 3) places of the strongest extrema, every slab along z having its share."""
    strength = np.abs(band)
    peak = (strength == ndimage.maximum_filter(strength, 3)) & (strength > 1.0)
    margin = tuple(slice(min(MARGIN, n // 4), n - min(MARGIN, n // 4)) for n in band.shape)
    inner = np.zeros_like(peak)
    inner[margin] = True
    at = np.argwhere(peak & inner)
    order = np.lexsort((*at.T[::-1], -strength[tuple(at.T)]))
    slab = at[order, 0] // SLAB
    rank = np.zeros(len(order), int)
    for one in np.unique(slab):
        rank[slab == one] = np.arange(np.count_nonzero(slab == one))
    chosen = at[order[np.argsort(rank, kind="stable")[:count]]]
    return chosen + _offsets(band, chosen)


def _offsets(band: NDArray[np.float32], at: NDArray[np.intp]) -> NDArray[np.float64]:
    """How far the extremum of a parabola through each point and its neighbours lies from it, along each axis."""
    out = np.zeros(at.shape)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        below, here, above = (band[tuple((at + k * step).T)].astype(float) for k in (-1, 0, 1))
        bend = below - 2 * here + above
        out[:, axis] = np.where(bend != 0, 0.5 * (below - above) / np.where(bend == 0, 1, bend), 0)
    return np.clip(out, -0.5, 0.5)


def _turned(samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Neighbourhoods (points, 4, 4, 4), each with its upper half the brighter one along each axis, and a bit for each
    axis along which that took a mirror."""
    turned = np.zeros(len(samples), np.uint8)
    for axis in (1, 2, 3):
        weights = OFFSETS.reshape([-1 if a == axis else 1 for a in range(4)])
        dark = (samples * weights).sum((1, 2, 3)) < 0
        samples[dark] = np.flip(samples[dark], axis)
        turned |= (dark << (axis - 1)).astype(np.uint8)
    return samples, turned
