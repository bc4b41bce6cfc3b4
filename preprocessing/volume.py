"""A volume: Hounsfield values with their geometry, and label arrays on the same grid."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import AnatomyKind
from preprocessing.geometry import Geometry
from preprocessing.hu_audit import HuAudit


@dataclass(frozen=True)
class Volume:
    """int16 HU (z, y, x) with its geometry; `anatomy` uint8 ids 0-119 and `lesion` uint8 0/1 on the same grid.

    `companions` are further int16 HU arrays on the same grid. `findings` are sentences of what was repaired or odd.
    `audit` is what the HU audit measured, None before it.
    """

    image: NDArray[np.int16]
    geometry: Geometry
    anatomy: NDArray[np.uint8] | None = None
    anatomy_kind: AnatomyKind = "none"
    lesion: NDArray[np.uint8] | None = None
    companions: dict[str, NDArray[np.int16]] = field(default_factory=dict)
    audit: HuAudit | None = None
    findings: tuple[str, ...] = ()
