"""Guards: a CT unlike all that a model has seen is refused, or taken with a warning that says in what it differs."""

from collections.abc import Iterator

import numpy as np

from infra.errors import UserError
from training.applications.scan import Scan
from training.models import Model
from training.runs import SeenRegion
from training.seen import region_extent_mm, slice_spacing_mm

TOLERANCE = 1.25  # how far beyond the training cases a length may lie without a word
LEAST_SHARE = 0.5  # of the smallest field of view in training; below, there is nothing to go by


def require_seen(scan: Scan, model: Model) -> list[str]:
    """What of a scan lies outside of what the model has seen, a sentence each.

    Raises:
        UserError: the model has seen no such region, or only fields of view at least twice as large.
    """
    warnings = []
    for extent in scan.regions:
        seen = model.seal.seen.get(extent.name)
        if seen is None:
            known = ", ".join(model.seal.seen)
            raise UserError(
                f"{scan.case.id} shows the {extent.name}, which this model has never seen (it knows {known}); "
                "choose another model, or say the region with --region if this is not one"
            )
        lengths = region_extent_mm(scan.stored, extent.z_stop - extent.z_start)
        if any(mm < LEAST_SHARE * least for mm, least in zip(lengths, seen.smallest_mm, strict=True)):
            raise UserError(
                f"{scan.case.id}: {_size(lengths)} of {extent.name} is less than half of the smallest field of view "
                f"that this model has seen ({_size(seen.smallest_mm)}); give the whole scan"
            )
        warnings += _differences(scan, extent.name, lengths, seen)
    return warnings


def _differences(scan: Scan, region: str, lengths: tuple[float, ...], seen: SeenRegion) -> Iterator[str]:
    small, large = np.asarray(seen.smallest_mm) / TOLERANCE, np.asarray(seen.largest_mm) * TOLERANCE
    if ((np.asarray(lengths) < small) | (np.asarray(lengths) > large)).any():
        yield (
            f"{scan.case.id}: {_size(lengths)} of {region} is outside of what the model has seen "
            f"({_size(seen.smallest_mm)} to {_size(seen.largest_mm)}); look at the result twice"
        )
    slices = slice_spacing_mm(scan.stored)
    if slices > seen.thickest_slices_mm * TOLERANCE:
        yield (
            f"{scan.case.id}: slices {slices:.3g} mm apart are thicker than any the model has seen "
            f"({seen.thickest_slices_mm:.3g} mm); look at the result twice"
        )


def _size(lengths_mm: tuple[float, ...]) -> str:
    return " x ".join(f"{mm:.0f}" for mm in lengths_mm) + " mm (z, y, x)"
