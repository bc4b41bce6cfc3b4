"""Are two stored volumes the same scan? Decided from their voxels at about 4 mm, cropped, flipped or reset as they be.

Both are windowed to soft tissue and band-passed, so that neither an offset nor the coarse shape of a body counts, and
laid over one another as a candidate's arrangement says: mirrored or not, at equal scale with a shift (copies that were
cropped, padded or resampled) or stretched onto one grid (copies that lost their spacing). The agreement is the
normalised correlation of the voxels that overlap: near 1 for one scan, far lower for two scans of one patient.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.duplicates.candidates import Arrangement
from preprocessing.duplicates.signature import WINDOW_HU
from preprocessing.pyramid import resize_weights

FINE, BROAD = 0.7, 2.0  # voxels: Gaussians whose difference is the band-pass
NOISE_HU = 3.0
SAME_AGREEMENT = 0.9
HOPELESS = 0.5  # an agreement at twice the voxel size below which nobody looks closer
SMALLEST_OVERLAP = 0.5  # of the smaller volume
HALVED_OVERLAP = 0.7  # of that, before the arrangement is refined
DOUBTFUL = 0.7  # an agreement of their middles below which the whole volumes are not compared
LOOKED_AT = 64  # voxels: longest edge of the part in which the shift is sought
STRETCHED = 48  # voxels: longest edge of the common grid
Shift = tuple[int, ...]


def is_same_scan(first: NDArray[np.int16], second: NDArray[np.int16], arrangement: Arrangement) -> bool:
    """Whether the agreement of two volumes is one that only the same scan reaches."""
    return agreement(first, second, arrangement) >= SAME_AGREEMENT


def agreement(first: NDArray[np.int16], second: NDArray[np.int16], arrangement: Arrangement) -> float:
    """The correlation (-1 to 1) of two volumes, int16 HU, z y x, of one voxel size, near the arrangement given."""
    one, other = (np.clip(volume, *WINDOW_HU).astype(np.float32) for volume in (first, second))
    if arrangement.shift is None:
        return _stretched(one, other)
    other = _mirrored(other, arrangement.mirror)
    flipped = [(n - 1) * (step < 0) for n, step in zip(other.shape, arrangement.mirror, strict=True)]
    shift = tuple(s - n for s, n in zip(arrangement.shift, flipped, strict=True))
    needed = SMALLEST_OVERLAP * min(one.size, other.size)
    parts = _overlapping(one, other, shift)
    if parts[0].size < HALVED_OVERLAP * needed:
        return -1.0
    value, further = _climbed(*(_band(_halved(part), 2) for part in parts))
    if value < HOPELESS:
        return value
    shift = tuple(s + 2 * more for s, more in zip(shift, further, strict=True))
    textures = [_band(part) for part in _overlapping(one, other, shift, LOOKED_AT)]
    value, further = _climbed(textures[0], textures[1])
    if value < DOUBTFUL:
        return value
    shift = tuple(s + more for s, more in zip(shift, further, strict=True))
    one, other = _overlapping(one, other, shift)
    if one.size < needed:
        return -1.0
    other = _moved(other, _between(textures[0], textures[1], further))
    return _correlation(_band(one), _band(other))


def _stretched(one: NDArray, other: NDArray) -> float:
    """The best correlation of two volumes on one grid; on so small a one, every mirrored copy is looked at."""
    shape = [min(a, b, STRETCHED) for a, b in zip(one.shape, other.shape, strict=True)]
    one, other = (_band(_resized(volume, shape)) for volume in (one, other))
    return max(_correlation(one, _mirrored(other, mirror)) for mirror in product((1, -1), repeat=3))


def _mirrored(volume: NDArray, mirror: Sequence[int]) -> NDArray:
    return volume[tuple(slice(None, None, step) for step in mirror)]


def _overlapping(one: NDArray, other: NDArray, shift: Shift, longest: int | None = None) -> tuple[NDArray, NDArray]:
    """What overlaps at a shift, of both volumes: its middle, at most `longest` voxels along each axis."""
    mine, theirs = [], []
    for n, m, s in zip(one.shape, other.shape, shift, strict=True):
        low = max(0, s)
        high = max(low, min(n, m + s))
        cut = max(0, high - low - (longest or high)) // 2
        mine.append(slice(low + cut, high - cut))
        theirs.append(slice(low + cut - s, high - cut - s))
    return one[tuple(mine)], other[tuple(theirs)]


def _climbed(one: NDArray, other: NDArray) -> tuple[float, Shift]:
    """The local maximum of the correlation over whole-voxel shifts of `other`, from none on, and where it is."""
    shift: Shift = (0, 0, 0)
    best = _overlap_correlation(one, other, shift)
    while True:
        steps = [tuple(s + d * (a == axis) for a, s in enumerate(shift)) for axis in range(3) for d in (-1, 1)]
        value, step = max((_overlap_correlation(one, other, step), step) for step in steps)
        if value <= best:
            return best, shift
        best, shift = value, step


def _between(one: NDArray, other: NDArray, shift: Shift) -> list[float]:
    """How much further `other` ought to be moved, within half a voxel, by a parabola through three correlations."""
    out = []
    for axis in range(3):
        below, here, above = (
            _overlap_correlation(one, other, tuple(s + d * (a == axis) for a, s in enumerate(shift)))
            for d in (-1, 0, 1)
        )
        bend = below - 2 * here + above
        out.append(float(np.clip(0.5 * (below - above) / bend, -0.5, 0.5)) if bend < 0 and below > -1 < above else 0.0)
    return out


def _moved(volume: NDArray[np.float32], voxels: Sequence[float]) -> NDArray[np.float32]:
    """A volume moved by less than a voxel along each axis, by windowed sinc."""
    for axis, part in enumerate(voxels):
        taps = np.sinc(np.arange(-3, 4) + part) * np.sinc((np.arange(-3, 4) + part) / 4)
        volume = ndimage.correlate1d(volume, taps / taps.sum(), axis, mode="nearest")
    return volume


def _overlap_correlation(one: NDArray, other: NDArray, shift: Shift) -> float:
    here, there = _overlapping(one, other, shift)
    return _correlation(here, there) if here.size >= SMALLEST_OVERLAP * min(one.size, other.size) else -1.0


def _correlation(one: NDArray, other: NDArray) -> float:
    if not one.size:
        return -1.0
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.vdot(one, one) * np.vdot(other, other)))
    return float(np.vdot(one, other)) / scale if scale > 0 else -1.0


def _band(volume: NDArray[np.float32], voxel: int = 1) -> NDArray[np.float32]:
    """The texture of a volume whose voxels are `voxel` times as large as those that FINE and BROAD are in.

    Band-passed and divided by its local strength, so that what is inside a body counts as much as its outline.
    """
    fine, broad = (ndimage.gaussian_filter(volume, sigma / voxel, mode="nearest") for sigma in (FINE, BROAD))
    band = fine - broad
    strength = np.sqrt(ndimage.gaussian_filter(band * band, BROAD / voxel, mode="nearest"))
    return band / (strength + NOISE_HU)


def _resized(volume: NDArray[np.float32], shape: list[int]) -> NDArray[np.float32]:
    for axis, size in enumerate(shape):
        weights = resize_weights(volume.shape[axis], size)
        volume = np.moveaxis(np.tensordot(weights, volume, (1, axis)), 0, axis)
    return volume


def _halved(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    steps = [min(2, n) for n in volume.shape]
    even = volume[tuple(slice(0, n // step * step) for n, step in zip(volume.shape, steps, strict=True))]
    blocks = [length for n, step in zip(even.shape, steps, strict=True) for length in (n // step, step)]
    return even.reshape(blocks).mean((1, 3, 5))
