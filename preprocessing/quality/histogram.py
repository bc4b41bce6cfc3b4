"""The histogram of a volume and what can be read from it: padding, modes, values that pile up at an end.

Modes are local maxima of the histogram after a Gaussian of 10 HU, so that noise and gaps between whole numbers do not
count; padding is told from air by being one single value far below all else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

SAMPLES = 4_000_000
SMOOTH_HU = 10
MARGIN = 5 * SMOOTH_HU
SMALLEST_MODE = 2e-5  # prominence: share of voxels a HU, as is the smoothed histogram
BELOW_AIR_HU = -1100  # no scanner's air; ringing and noise reach a little lower
LUNG_HU = -850  # padding lies below it
PADDING_SHARE = 5e-4  # fewer are outliers
GAP = 100  # between padding and all else
NEAR_SHARE = 1e-3
SPIKE_NEIGHBOURS = 50
SPIKE = 5  # times the mean of its neighbours
SPIKE_SHARE = 5e-5
INT16_STEPS = 1 << 15


@dataclass(frozen=True)
class Mode:
    """A local maximum of the smoothed histogram: where it lies and how far it stands out, as a share a HU."""

    hu: int
    prominence: float


@dataclass(frozen=True)
class Histogram:
    """Distinct values (ascending) with their counts, of at most some 4 million voxels; extremes are of all voxels."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    low: int
    high: int

    def share(self, low: float, high: float) -> float:
        """The share of voxels with low <= HU <= high; 0 where there are none at all."""
        first, stop = np.searchsorted(self.values, low, "left"), np.searchsorted(self.values, high, "right")
        return float(self.counts[first:stop].sum() / max(1, self.counts.sum()))

    def quantile(self, share: float) -> int:
        """The value below which a share of the voxels lies."""
        rising = np.cumsum(self.counts)
        return int(self.values[np.searchsorted(rising, share * rising[-1])])

    def without(self, value: int | None) -> "Histogram":
        """The histogram of all other voxels."""
        kept = self.values != value
        if kept.all() or not kept.any():
            return self
        values = self.values[kept]
        return Histogram(
            values,
            self.counts[kept],
            int(values[0]) if value == self.low else self.low,
            int(values[-1]) if value == self.high else self.high,
        )

    def rescaled(self, scale: float, offset: float) -> "Histogram":
        """The histogram of `scale` x image + `offset` (scale > 0), rounded and held within int16."""

        def moved(values: NDArray) -> NDArray[np.int64]:
            return np.clip(np.rint(values * scale + offset), -INT16_STEPS, INT16_STEPS - 1).astype(np.int64)

        values, inverse = np.unique(moved(self.values), return_inverse=True)
        counts = np.bincount(inverse, self.counts).astype(np.int64)
        low, high = moved(np.array([self.low, self.high])).tolist()
        return Histogram(values, counts, low, high)


def histogram_of(image: NDArray[np.int16]) -> Histogram:
    """The histogram of a volume."""
    step = max(1, round((image.size / SAMPLES) ** (1 / 3)))
    counts = np.bincount(image[::step, ::step, ::step].ravel().astype(np.int32) + INT16_STEPS)
    values = np.flatnonzero(counts)
    return Histogram(values - INT16_STEPS, counts[values], int(image.min()), int(image.max()))


def padding_of(histogram: Histogram) -> int | None:
    """The value of what lies outside the scanner's circle: alone at the low end, or most of all below any air."""
    values, counts = histogram.values, histogram.counts
    if (
        len(values) > 1
        and values[0] < LUNG_HU
        and values[1] - values[0] > GAP
        and counts[0] > SPIKE_SHARE * counts.sum()
    ):
        return int(values[0])
    below = int(np.searchsorted(values, BELOW_AIR_HU))
    most = int(counts[:below].max(initial=0))
    if most < PADDING_SHARE * counts.sum() or 2 * most < counts[:below].sum():
        return None
    return int(values[counts[:below].argmax()])


def stands_alone(histogram: Histogram, padding: int) -> bool:
    """True where hardly any voxel lies just above a padding value, as air would that was scaled."""
    rest = histogram.without(padding)
    return rest.share(padding + 1, padding + SPIKE_NEIGHBOURS) < NEAR_SHARE


def modes_of(histogram: Histogram) -> tuple[Mode, ...]:
    """The modes, ascending in HU."""
    first = int(histogram.values[0]) - MARGIN
    dense = np.zeros(int(histogram.values[-1]) - first + MARGIN + 1)
    dense[histogram.values - first] = histogram.counts / histogram.counts.sum()
    smooth = gaussian_filter1d(dense, SMOOTH_HU, mode="constant")
    peaks, properties = find_peaks(smooth, prominence=SMALLEST_MODE)
    return tuple(Mode(int(p) + first, float(s)) for p, s in zip(peaks, properties["prominences"], strict=True))


def mode_within(modes: tuple[Mode, ...], band: tuple[float, float]) -> int | None:
    """The HU of the most prominent mode inside a band, None where there is none."""
    inside = [mode for mode in modes if band[0] <= mode.hu <= band[1]]
    return max(inside, key=lambda mode: mode.prominence).hu if inside else None


def piles_up(histogram: Histogram, *, top: bool) -> bool:
    """True where the highest (or lowest) value is commoner than its neighbours can explain: the image was clipped."""
    end, inward = (histogram.high, -SPIKE_NEIGHBOURS) if top else (histogram.low, SPIKE_NEIGHBOURS)
    near = sorted((end + (-1 if top else 1), end + inward))
    at = histogram.share(end, end)
    return at > SPIKE_SHARE and at > SPIKE * histogram.share(*near) / SPIKE_NEIGHBOURS
