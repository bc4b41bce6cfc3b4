"""The HU audit: is this certainly CT in Hounsfield units, and if not quite, can it be mended with certainty?

Judged from the histogram alone: air near -1000, fat near -100, soft tissue near 45, and nothing that a picture, a label
map or an MR has instead. What is certain is repaired and recorded; what is certainly not CT, or not certain, is refused
with the numbers seen. What lies below -1024 (padding outside the scanner's circle, ringing) becomes -1024. A body that
is upside down or mirrored has the same histogram: its regions tell. Companions follow their image (`in_hu`).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import CaseError
from preprocessing.hu_audit import HuAudit
from preprocessing.quality.histogram import Histogram, histogram_of, piles_up
from preprocessing.quality.plausibility import TISSUE_HU, doubt_of, modes_seen
from preprocessing.quality.rescale import Reading, certain_correction, read_as
from preprocessing.volume import Volume

FLOOR_HU = -1024
MIN_VOXELS = 8
METAL_HU = 2000
COMPANION_HU = 60  # by which a companion's tissue may differ from its image's


def audit(volume: Volume) -> Volume:
    """The volume, repaired where that is certain, with `audit` and a finding for each repair; run before resampling.

    Raises:
        CaseError: too thin, no CT, or CT in other units than HU; the message says what was measured.
    """
    _check_thickness(volume.image.shape)
    stored = histogram_of(volume.image)
    reading = _reading(stored)
    found = _record(stored, reading)
    findings = (*volume.findings, *_findings(volume.image, reading, found))
    return replace(volume, image=in_hu(volume.image, found), audit=found, findings=findings)


def _check_thickness(shape: tuple[int, ...]) -> None:
    if min(shape) >= MIN_VOXELS:
        return
    shown = " x ".join(str(n) for n in shape)
    kind = "is 2-D" if min(shape) == 1 else "is too thin to be a volume"
    raise CaseError(f"the image {kind}: {shown} voxels (z, y, x), at least {MIN_VOXELS} along each axis are needed.")


def _reading(stored: Histogram) -> Reading:
    """The stored values as HU: as they are, or under the one certain correction."""
    as_stored = read_as(stored)
    if not (doubt := doubt_of(as_stored)):
        return as_stored
    mended = certain_correction(stored)
    if mended is None or doubt_of(mended):
        raise CaseError(doubt)
    return mended


def as_stored(hu: NDArray[np.int16], scan: Volume, stored: NDArray[np.int16]) -> NDArray[np.int16]:
    """HU on the grid of an audited scan in the scale of what it was read as; unchanged voxels are as they were.

    `stored` is the image before its audit.
    """
    return np.where(hu == scan.image, stored, in_scale_of(hu, scan.audit))


def in_scale_of(hu: NDArray[np.int16], found: HuAudit | None) -> NDArray[np.int16]:
    """HU as stored values that the repair of an audit turns into these."""
    if found is None or (found.scale, found.offset) == (1.0, 0.0):
        return hu
    limits = np.iinfo(np.int16)
    return np.rint((hu - found.offset) / found.scale).clip(limits.min, limits.max).astype(np.int16)


def in_hu(stored: NDArray[np.int16], found: HuAudit | None) -> NDArray[np.int16]:
    """Stored values under the repair of an audit, raised to -1024 HU; the same array where nothing changes."""
    if found is None or (found.scale, found.offset) == (1.0, 0.0):
        return np.maximum(stored, np.int16(FLOOR_HU)) if stored.min() < FLOOR_HU else stored
    out = np.empty_like(stored)
    for plane, corrected in zip(stored, out, strict=True):
        hu = np.rint(plane * np.float32(found.scale) + np.float32(found.offset))
        corrected[...] = np.clip(hu, FLOOR_HU, np.iinfo(np.int16).max)
    return out


def check_companion(name: str, companion: NDArray[np.int16], image: NDArray[np.int16]) -> None:
    """Refuses a companion whose tissue lies at other values than its image's, both on one grid.

    Raises:
        CaseError: the median of their difference in tissue is beyond what noise and dose can do.
    """
    step = max(1, round((image.size / 1e6) ** (1 / 3)))
    thin = (slice(None, None, step),) * 3
    tissue = (image[thin] >= TISSUE_HU[0]) & (image[thin] <= TISSUE_HU[1])
    apart = float(np.median(companion[thin][tissue] - image[thin][tissue].astype(np.int32))) if tissue.any() else 0.0
    if abs(apart) > COMPANION_HU:
        raise CaseError(
            f"the companion {name} differs from its image by {apart:.0f} HU in tissue: their rescales differ; "
            "export both in HU."
        )


def _record(stored: Histogram, reading: Reading) -> HuAudit:
    padding, rest = reading.padding, reading.rest
    return HuAudit(
        low=stored.low,
        high=stored.high,
        air_peak_hu=reading.air,
        fat_peak_hu=reading.fat,
        soft_tissue_peak_hu=reading.soft,
        padding_value=None if padding is None else round((padding - reading.offset) / reading.scale),
        padded_share=0.0 if padding is None else round(reading.histogram.share(padding, padding), 6),
        clipped_low=piles_up(rest, top=False),
        clipped_high=piles_up(rest, top=True),
        scale=reading.scale,
        offset=reading.offset,
    )


def _findings(stored: NDArray[np.int16], reading: Reading, found: HuAudit) -> list[str]:
    """A sentence for each repair, and for values that its source has cut off."""
    out = []
    if reading.is_corrected:
        out.append(
            f"stored in other units{modes_seen(read_as(histogram_of(stored)))}: {reading.scale:g} x stored "
            f"{reading.offset:+g} was taken, which brings air to {reading.air}, fat to {reading.fat} and soft tissue "
            f"to {reading.soft} HU"
        )
    if reading.histogram.low < FLOOR_HU:
        below = int(np.count_nonzero(stored < (FLOOR_HU - reading.offset) / reading.scale))
        out.append(f"{below} voxels below {FLOOR_HU} HU (lowest {reading.histogram.low}) became {FLOOR_HU}")
    if reading.air is None:
        out.append("no air in the image: only soft tissue shows that these are Hounsfield units")
    if found.clipped_high and reading.rest.high < METAL_HU:
        out.append(f"values pile up at {reading.rest.high} HU: its source clipped them there")
    return out
