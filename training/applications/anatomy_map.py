"""An anatomy map of one's own as what a synthetic CT is drawn from: read, checked, brought to the model's spacing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import UserError
from preprocessing.anatomy import BODY, NUM_IDS, UNKNOWN
from preprocessing.case import CaseError, RegionName
from preprocessing.decoding.decode import read_raster
from preprocessing.geometry import Geometry
from preprocessing.resample import output_grid, resample_onto


@dataclass(frozen=True)
class AnatomyMap:
    """Class ids (z, y, x; axis-aligned LPS) at a model's spacing, all of one region."""

    ids_ZYX: NDArray[np.uint8]
    geometry: Geometry
    region: RegionName


def read_map(path: Path, region: RegionName, spacing_mm: float) -> AnatomyMap:
    """The map in a file of class ids: 1-117 as TotalSegmentator numbers them, 118 for the rest of the body.

    Raises:
        UserError: it is not there, holds other numbers, or names no body.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there; give a file of class ids (NIfTI, NRRD or MetaImage)")
    try:
        raster = read_raster([str(path)])
        grid = output_grid(raster.geometry, spacing_mm)
    except CaseError as error:
        raise UserError(str(error)) from None
    low, high = float(raster.array.min()), float(raster.array.max())
    ids = np.asarray(raster.array).astype(np.uint8)
    if low < 0 or high >= NUM_IDS or not np.array_equal(ids, raster.array):
        raise UserError(f"{path.name}: values run from {low:g} to {high:g}; a map holds whole ids from 0 to {UNKNOWN}")
    if not (ids >= BODY).any():
        raise UserError(
            f"{path.name} names organs but no body ({BODY}): what lies between them would be air; mark the rest of the "
            f"body with {BODY}"
        )
    return AnatomyMap(resample_onto(ids, raster.geometry, grid, nearest=True), grid, region)
