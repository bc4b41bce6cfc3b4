"""The lost or repeated rescale: which affine correction of stored values, if any, certainly gives Hounsfield units.

A scanner stores HU = slope x stored + intercept. Archives hold images to which that was applied not at all or twice.
The candidates are exactly these mistakes for the slopes and intercepts in use; one is certain where air, fat and soft
tissue all come to lie where they belong, and no other candidate brings them nearly as close.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.quality.histogram import Histogram, Mode, mode_within, modes_of, padding_of

NOMINAL_HU = {"air": -1000, "fat": -100, "soft": 45}
AIR_HU, FAT_HU, SOFT_HU = (-1060, -900), (-150, -50), (0, 100)
FLOORS_HU = (-1024, -1000)
SLOPES = (1.0, 2.0, 0.5)
INTERCEPTS = (-1024.0, -1000.0, -8192.0, 0.0)
CLOSE_HU = 16  # root mean square of the modes' distances from their nominal places
LEAST_SHARE = 0.005
MARGIN_HU = 8  # by which every other candidate must be worse


@dataclass(frozen=True)
class Reading:
    """Stored values taken as HU after `scale` x stored + `offset`: padding and the modes of the rest."""

    scale: float
    offset: float
    histogram: Histogram  # of the corrected image, padding included
    padding: int | None
    modes: tuple[Mode, ...]  # without padding
    air: int | None
    fat: int | None
    soft: int | None

    @property
    def rest(self) -> Histogram:
        """The corrected image without padding."""
        return self.histogram.without(self.padding)

    @property
    def is_corrected(self) -> bool:
        """The stored values are not taken as they are."""
        return (self.scale, self.offset) != (1.0, 0.0)

    @property
    def is_complete(self) -> bool:
        """Air, fat and soft tissue each have a mode."""
        return None not in (self.air, self.fat, self.soft)

    def distance_hu(self) -> float:
        """How far, root mean square, the modes lie from their nominal places; infinite without air or soft tissue.

        Fat may lack a mode of its own (a head) where the lowest value is a scanner's floor instead.
        """
        if self.air is None or self.soft is None or (self.fat is None and self.rest.low not in FLOORS_HU):
            return float("inf")
        apart = [hu - NOMINAL_HU[name] for name in NOMINAL_HU if (hu := getattr(self, name)) is not None]
        return float(np.sqrt(np.mean(np.square(apart))))


def read_as(stored: Histogram, scale: float = 1.0, offset: float = 0.0) -> Reading:
    """The reading of stored values under one correction."""
    histogram = stored if (scale, offset) == (1.0, 0.0) else stored.rescaled(scale, offset)
    padding = padding_of(histogram)
    modes = modes_of(histogram.without(padding))
    air, fat, soft = (mode_within(modes, band) for band in (AIR_HU, FAT_HU, SOFT_HU))
    return Reading(scale, offset, histogram, padding, modes, air, fat, soft)


def corrections() -> tuple[tuple[float, float], ...]:
    """(scale, offset) that undo a rescale applied twice, or make up for one never applied."""
    pairs = [(slope, intercept) for slope in SLOPES for intercept in INTERCEPTS if (slope, intercept) != (1.0, 0.0)]
    return tuple(dict.fromkeys([*pairs, *((1 / slope, -intercept / slope + 0.0) for slope, intercept in pairs)]))


def certain_correction(stored: Histogram) -> Reading | None:
    """The one correction that certainly turns stored values into HU; None where there is none, or more than one."""
    possible = [correction for correction in corrections() if _has_air_and_tissue(stored, *correction)]
    ranked = sorted((read_as(stored, *correction) for correction in possible), key=Reading.distance_hu)
    if not ranked or (nearest := ranked[0].distance_hu()) > CLOSE_HU:
        return None
    if len(ranked) > 1 and ranked[1].distance_hu() < nearest + MARGIN_HU:
        return None
    return ranked[0]


def _has_air_and_tissue(stored: Histogram, scale: float, offset: float) -> bool:
    """False where a correction leaves air or tissue empty: it need not be looked at more closely."""
    low, high = ((hu - offset) / scale for hu in AIR_HU)
    fat, soft = ((hu - offset) / scale for hu in (FAT_HU[0], SOFT_HU[1]))
    return stored.share(low, high) > LEAST_SHARE and stored.share(fat, soft) > LEAST_SHARE
