"""The HU audit: is this certainly CT in Hounsfield units, and if not quite, can it be mended with certainty?

Judged from the histogram alone: air near -1000, soft tissue near 0 to 100, nothing that a picture, a label map or an MR
has instead. What is certain is repaired and recorded; what is certainly not CT, or not certain, is refused with the
numbers seen. Padding below -1024 (outside the scanner's circle) becomes -1024.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import CaseError
from preprocessing.volume import Volume

AIR_HU = -1024
MIN_VOXELS = 8
SAMPLES = 4_000_000
TISSUE_HU = (-200, 250)  # fat to contrast-filled organs
MIN_RANGE_HU = 300
MAX_LABEL_VALUES = 256
OFFSET_HU = 1024
OFFSET_TISSUE_SHARE = 0.75  # of what is no air, shifted by OFFSET_HU
OFFSET_AIR = (3, 60)  # 0 to 2 may be padding
CERTAIN_AIR = (10, 40)  # air at -1000, stored 1024 too high; at an offset of 1000 it would lie at 0
SCANNER_MAXIMUM = 4095  # 12 bits
CLIPPED_SHARE = 0.05


@dataclass(frozen=True)
class Histogram:
    """Numbers of the audit: extremes of all voxels, and shares and distinct values of at most 4 million of them."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    low: int
    high: int

    def share(self, low: float, high: float) -> float:
        """The share of voxels with low <= HU <= high."""
        inside = (self.values >= low) & (self.values <= high)
        return float(self.counts[inside].sum() / self.counts.sum())

    def peak(self, low: float, high: float) -> int:
        """The commonest value between two HU; `low` where there is none."""
        inside = (self.values >= low) & (self.values <= high)
        return int(self.values[inside][self.counts[inside].argmax()]) if inside.any() else int(low)


def audit(volume: Volume) -> Volume:
    """The volume, repaired where that is certain, with a finding for each repair; run it before resampling.

    Raises:
        CaseError: too thin, no CT, or CT in other units than HU; the message says what was measured.
    """
    _check_thickness(volume.image.shape)
    histogram = histogram_of(volume.image)
    findings = list(volume.findings)
    if _is_offset(histogram):
        findings.append(
            f"stored {OFFSET_HU} too high (air at {histogram.peak(*OFFSET_AIR)}, tissue near "
            f"{histogram.peak(OFFSET_HU - 200, OFFSET_HU + 250)}): {OFFSET_HU} subtracted"
        )
        shifted = np.maximum(volume.image, AIR_HU + OFFSET_HU) - np.int16(OFFSET_HU)
        volume = replace(volume, image=shifted)
        histogram = histogram_of(shifted)
    _refuse_what_is_no_ct(histogram)
    image, padded = clip_padding(volume.image)
    if padded and histogram.low < AIR_HU:
        findings.append(f"{padded} voxels below {AIR_HU} HU (lowest {histogram.low}) became {AIR_HU}")
    _refuse_without_tissue(histogram)
    companions = {name: clip_padding(other)[0] for name, other in volume.companions.items()}
    return replace(volume, image=image, companions=companions, findings=tuple(findings))


def histogram_of(image: NDArray[np.int16]) -> Histogram:
    """The histogram of a volume."""
    step = max(1, round((image.size / SAMPLES) ** (1 / 3)))
    counts = np.bincount(image[::step, ::step, ::step].ravel().astype(np.int32) + 32768)
    values = np.flatnonzero(counts)
    return Histogram(values - 32768, counts[values], int(image.min()), int(image.max()))


def clip_padding(image: NDArray[np.int16]) -> tuple[NDArray[np.int16], int]:
    """The image with everything below -1024 HU raised to it, and how many voxels that were."""
    below = int(np.count_nonzero(image < AIR_HU))
    return (np.maximum(image, np.int16(AIR_HU)) if below else image), below


def _check_thickness(shape: tuple[int, ...]) -> None:
    if min(shape) >= MIN_VOXELS:
        return
    shown = " x ".join(str(n) for n in shape)
    kind = "is 2-D" if min(shape) == 1 else "is too thin to be a volume"
    raise CaseError(f"the image {kind}: {shown} voxels (z, y, x), at least {MIN_VOXELS} along each axis are needed.")


def _is_offset(histogram: Histogram) -> bool:
    """True where the whole image is certainly stored as HU + 1024: an air peak at 24 and tissue near 1024."""
    solid = histogram.share(500, SCANNER_MAXIMUM)
    tissue = histogram.share(OFFSET_HU + TISSUE_HU[0], OFFSET_HU + TISSUE_HU[1])
    return (
        histogram.share(-1000, -100) == 0
        and OFFSET_HU + 400 < histogram.high <= SCANNER_MAXIMUM
        and histogram.share(-60, 60) > 0.02
        and CERTAIN_AIR[0] <= histogram.peak(*OFFSET_AIR) <= CERTAIN_AIR[1]
        and solid > 0.02
        and tissue >= OFFSET_TISSUE_SHARE * solid
    )


def _refuse_what_is_no_ct(histogram: Histogram) -> None:
    """Refuses constants, label maps, pictures, MR, normalised and windowed images."""
    low, high = histogram.low, histogram.high
    seen = f"values run from {low} to {high}"
    if low == high:
        raise CaseError(f"the image is constant: every voxel is {low}; it holds no CT.")
    if low >= 0 and len(histogram.values) <= MAX_LABEL_VALUES and high < 1000:
        raise CaseError(
            f"the image holds only {len(histogram.values)} whole numbers from {low} to {high}: a label map, a mask or "
            "an 8-bit picture, no CT in HU; name a label <image>_seg so that it goes with its image."
        )
    if low >= 0:
        raise CaseError(
            f"{seen}, nothing is negative: no air, no fat, so these are no Hounsfield units (MR, or a lost rescale "
            "intercept); export the CT with its rescale intercept."
        )
    if high - low < MIN_RANGE_HU:
        raise CaseError(f"{seen}: too narrow for Hounsfield units (normalised?); give the image in HU.")
    commonest = histogram.share(low, low)
    if low > -500 and commonest > CLIPPED_SHARE:
        raise CaseError(f"{seen} and {commonest:.0%} of it is exactly {low}: clipped to a window; give the full HU.")


def _refuse_without_tissue(histogram: Histogram) -> None:
    """Refuses what has air but nothing between fat and contrast-filled organs: a wrong slope or intercept."""
    tissue, inside = histogram.share(*TISSUE_HU), histogram.share(-500, 32767)
    if tissue < 0.005 or tissue < 0.2 * inside:
        raise CaseError(
            f"only {tissue:.1%} of the voxels lie between {TISSUE_HU[0]} and {TISSUE_HU[1]} HU (fat to organs), "
            f"{inside:.1%} above -500 HU, values run from {histogram.low} to {histogram.high}: "
            "a wrong slope or intercept, or no patient; check the rescale of the source."
        )
