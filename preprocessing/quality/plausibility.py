"""What speaks against an image being CT in Hounsfield units, as a sentence with the numbers seen."""

from preprocessing.quality.histogram import BELOW_AIR_HU, LUNG_HU, piles_up, stands_alone
from preprocessing.quality.rescale import Reading

TISSUE_HU = (-200, 250)  # fat to contrast-filled organs
MIN_RANGE_HU = 300
MAX_LABEL_VALUES = 256
HARDLY_NEGATIVE_HU = -100
FEW = 0.005
CLIPPED_SHARE = 0.05
LOWEST_CEILING_HU = 600  # clipped there, bone is lost
STRAY_SHARE = 0.05  # of the voxels, padding aside, below any scanner's air
STRONG_MODE = 0.03  # of the strongest mode's prominence
LUNG_MODE_HU = -600  # no tissue between lung and fat has a mode
LUNG_MODE_WITHOUT_AIR_HU = -750
FAT_MODE_HU = -160
HIGHEST_MODE_HU = 600  # contrast agent


def doubt_of(reading: Reading) -> str:
    """Why a reading is not certainly CT in HU, with what was measured; '' where it is."""
    for question in (_no_ct, _clipped, _hardly_negative, _below_air, _strange_mode, _no_tissue):
        if doubt := question(reading):
            return doubt
    return ""


def _no_ct(reading: Reading) -> str:
    """Constants, label maps, pictures, MR and normalised images."""
    rest = reading.rest
    low, high = rest.low, rest.high
    seen = f"values run from {low} to {high}"
    if low == high:
        return f"the image is constant: every voxel is {low}; it holds no CT."
    if low >= 0 and len(rest.values) <= MAX_LABEL_VALUES and high < 1000:
        return (
            f"the image holds only {len(rest.values)} whole numbers from {low} to {high}: a label map, a mask or "
            "an 8-bit picture, no CT in HU; name a label <image>_seg so that it goes with its image."
        )
    if low >= 0:
        return f"{seen}, nothing is negative: {_no_units(reading)}"
    if high - low < MIN_RANGE_HU:
        return f"{seen}: too narrow for Hounsfield units (normalised?); give the image in HU."
    return ""


def _hardly_negative(reading: Reading) -> str:
    """Air stored near 0: noise alone is negative."""
    if reading.rest.quantile(FEW) < HARDLY_NEGATIVE_HU:
        return ""
    return f"values run from {reading.rest.low} to {reading.rest.high}, hardly any are negative: {_no_units(reading)}"


def _no_units(reading: Reading) -> str:
    return (
        "no air, no fat, so these are no Hounsfield units (MR, or a lost rescale intercept"
        f"{modes_seen(reading)}); export the CT with its rescale intercept."
    )


def _clipped(reading: Reading) -> str:
    """Images clipped to a window: what was cut off cannot be brought back."""
    rest = reading.rest
    commonest = rest.share(rest.low, rest.low)
    seen = f"values run from {rest.low} to {rest.high}"
    if rest.low > LUNG_HU and commonest > CLIPPED_SHARE:
        return f"{seen} and {commonest:.0%} of it is exactly {rest.low}: clipped to a window; give the full HU."
    if rest.high < LOWEST_CEILING_HU and piles_up(rest, top=True):
        share = rest.share(rest.high, rest.high)
        return f"{seen} and {share:.2%} of it is exactly {rest.high}: bone is clipped to a window; give the full HU."
    return ""


def _below_air(reading: Reading) -> str:
    """Values under any scanner's air that are no padding."""
    below = reading.rest.share(-32768, BELOW_AIR_HU - 1)
    padding = reading.padding
    scaled_air = padding is not None and not reading.is_complete and not stands_alone(reading.histogram, padding)
    if below <= STRAY_SHARE and not scaled_air:
        return ""
    below = reading.histogram.share(-32768, BELOW_AIR_HU - 1)
    return (
        f"{below:.1%} of the voxels lie below {BELOW_AIR_HU} HU, under air, and not at one value as padding "
        f"does{modes_seen(reading)}: a rescale applied twice? Export the image again in HU."
    )


def _strange_mode(reading: Reading) -> str:
    """A mode where no tissue has one: a wrong slope or intercept."""
    lung = LUNG_MODE_HU if reading.air is not None else LUNG_MODE_WITHOUT_AIR_HU
    strongest = max((mode.prominence for mode in reading.modes), default=0.0)
    for mode in reading.modes:
        misplaced = lung < mode.hu < FAT_MODE_HU or (mode.hu > HIGHEST_MODE_HU and not reading.is_complete)
        if misplaced and mode.prominence >= STRONG_MODE * strongest:
            return (
                f"many voxels lie near {mode.hu} HU, where no tissue has its peak{modes_seen(reading)}; air is "
                "expected near -1000, fat near -100, soft tissue near 45: a wrong slope or intercept; check the "
                "rescale of the source."
            )
    return ""


def _no_tissue(reading: Reading) -> str:
    """What has air but nothing between fat and contrast-filled organs."""
    rest = reading.rest
    tissue, inside = rest.share(*TISSUE_HU), rest.share(-500, 32767)
    if tissue >= FEW and tissue >= 0.2 * inside:
        return ""
    return (
        f"only {tissue:.1%} of the voxels lie between {TISSUE_HU[0]} and {TISSUE_HU[1]} HU (fat to organs), "
        f"{inside:.1%} above -500 HU, values run from {rest.low} to {rest.high}: "
        "a wrong slope or intercept, or no patient; check the rescale of the source."
    )


def modes_seen(reading: Reading) -> str:
    """The strongest modes, ready to stand in a sentence."""
    strongest = sorted(reading.modes, key=lambda mode: -mode.prominence)[:4]
    shown = ", ".join(str(mode.hu) for mode in sorted(strongest, key=lambda mode: mode.hu))
    return f"; peaks at {shown}" if shown else ""
