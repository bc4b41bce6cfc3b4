"""What the HU audit measured in one case: plain numbers that travel with it into the store."""

from pydantic import Field

from infra.config import Config


class HuAudit(Config):
    """Peaks in HU of the image as accepted; a peak is None where the histogram has no mode in its band."""

    low: int = Field(description="lowest stored value, padding included, before any repair")
    high: int = Field(description="highest stored value before any repair")
    air_peak_hu: int | None = None
    fat_peak_hu: int | None = None
    soft_tissue_peak_hu: int | None = None
    padding_value: int | None = Field(None, description="stored value outside the scanner's circle; became -1024")
    padded_share: float = Field(0.0, description="share of voxels with that value")
    clipped_low: bool = Field(False, description="values pile up at the lowest one")
    clipped_high: bool = Field(False, description="values pile up at the highest one")
    scale: float = Field(1.0, description="applied repair: HU = scale x stored + offset")
    offset: float = 0.0
