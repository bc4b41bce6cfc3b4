"""Regions: head_neck, chest, abdomen, each with its HU window."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from infra.config import Config
from preprocessing.case import RegionName

REGIONS: tuple[RegionName, ...] = get_args(RegionName)


@dataclass(frozen=True)
class Window:
    """A HU window (SPEC §2.3): x = 2·(HU − low)/width − 1, so one unit of x is width/2 HU."""

    width_hu: float
    level_hu: float

    @property
    def low_hu(self) -> float:
        """The HU that becomes −1."""
        return self.level_hu - self.width_hu / 2

    @property
    def high_hu(self) -> float:
        """The HU that becomes +1."""
        return self.level_hu + self.width_hu / 2

    @property
    def hu_per_unit(self) -> float:
        """HU per unit of the [-1, 1] scale; a σ of .15 is .15 times this."""
        return self.width_hu / 2

    @property
    def of_differences(self) -> "Window":
        """A window around 0 HU, half as wide: how differences of images in this one are shown."""
        return Window(self.width_hu / 2, 0)

    def normalise(self, hu: NDArray) -> NDArray[np.float32]:
        """HU to [-1, 1], clipped, float32."""
        x = np.array(hu, np.float32)  # one copy, then in place
        x -= np.float32(self.low_hu)
        x *= np.float32(2 / self.width_hu)
        x -= 1
        return np.clip(x, -1, 1, out=x)

    def to_hu(self, x: NDArray) -> NDArray[np.float32]:
        """[-1, 1] to HU, float32; the inverse of `normalise` inside the window."""
        return ((np.asarray(x, np.float32) + 1) * np.float32(self.width_hu / 2) + np.float32(self.low_hu)).astype(
            np.float32, copy=False
        )


WINDOWS: dict[RegionName, Window] = {
    "head_neck": Window(400, 50),
    "chest": Window(1800, -500),
    "abdomen": Window(360, 60),
}


class RegionExtent(Config):
    """A region of a stored volume: level-0 voxels [z_start, z_stop) along z (inferior to superior)."""

    name: RegionName
    z_start: int
    z_stop: int
