"""What a model has seen: of each region how many cases, on which fields of view and from how thick slices.

It lies in the seal of a run, so that a CT unlike all of these can be told apart before the model answers with noise.
"""

from collections.abc import Callable, Sequence

import numpy as np

from preprocessing.case import RegionName
from preprocessing.geometry import Geometry, Triple
from preprocessing.regions import REGIONS
from preprocessing.store import StoredCase
from training.data import RegionVolume
from training.runs import SeenRegion

LOOKED_AT = 200  # cases of a region whose geometry is read


def what_was_seen(
    volumes: Sequence[RegionVolume], open_stored: Callable[[str], StoredCase]
) -> dict[RegionName, SeenRegion]:
    """The regions of the training volumes; the geometry of at most 200 cases of each, evenly picked, is read."""
    found: dict[RegionName, SeenRegion] = {}
    for region in REGIONS:
        mine = [volume for volume in volumes if volume.region == region]
        if mine:
            read = [_extent_mm(open_stored(v.key), region) for v in mine[:: -(-len(mine) // LOOKED_AT)]]
            extents = np.array([extent for extent, _ in read])
            found[region] = SeenRegion(
                cases=len(mine),
                smallest_mm=tuple(extents.min(0).tolist()),
                largest_mm=tuple(extents.max(0).tolist()),
                thickest_slices_mm=max(slices for _, slices in read),
            )
    return found


def _extent_mm(stored: StoredCase, region: RegionName) -> tuple[Triple, float]:
    """The size of the region and the thickest slices of its source."""
    extent = next(e for e in stored.record.regions if e.name == region)
    return region_extent_mm(stored, extent.z_stop - extent.z_start), slice_spacing_mm(stored)


def region_extent_mm(stored: StoredCase, slices: int) -> Triple:
    """The size of so many slices of a stored case in mm."""
    geometry = stored.geometry(0)
    _, height, width = geometry.shape
    z, y, x = geometry.spacing_mm
    return slices * z, height * y, width * x


def slice_spacing_mm(stored: StoredCase) -> float:
    """The largest spacing of a stored case's source: that between its slices."""
    return max(Geometry.from_dict(stored.record.source_geometry).spacing_mm)
