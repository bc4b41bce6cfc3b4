"""The even grid under a stack of slice positions: even already, resampled from true positions, or refused.

A distance that is longer than its neighbours on both sides is a hole: slices are missing there. Distances that change
and stay so (2 mm blocks, then 5 mm) are no hole: the slices are interpolated linearly, from where they truly lie, onto
an even grid at the finest distance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import CaseError

SAME_PLACE_MM = 0.01
GAP = 1.5  # times the distances on both sides: a slice is missing
UNEVEN = 0.01  # of the slice distance: worth a finding
TOO_UNEVEN = 0.25  # of the slice distance: interpolated
WIDEST_MM = 10.0  # what may be interpolated
COARSENING = 8.0  # the widest distance against the finest
NEIGHBOURS = 3


@dataclass(frozen=True)
class SliceGrid:
    """`step_xyz` in mm from slice to slice; `places` (m,) are fractional slice numbers, None where slices are even."""

    step_xyz: NDArray[np.float64]
    places: NDArray[np.float64] | None = None
    findings: tuple[str, ...] = ()


def distances(positions_xyz: NDArray) -> NDArray[np.float64]:
    """The n - 1 distances in mm between neighbouring positions (n, 3)."""
    return np.linalg.norm(np.diff(positions_xyz, axis=0), axis=1)


def holes(gaps: NDArray) -> dict[int, int]:
    """Where slices are missing: {index of the distance: about how many}."""
    found = {}
    for k, gap in enumerate(gaps):
        sides = [gaps[max(0, k - NEIGHBOURS) : k], gaps[k + 1 : k + 1 + NEIGHBOURS]]
        usual = max((float(np.median(side)) for side in sides if len(side)), default=float(gap))
        if gap >= GAP * usual and gap > SAME_PLACE_MM:
            found[k] = max(1, round(gap / max(usual, SAME_PLACE_MM)) - 1)
    return found


def is_one_volume(positions_xyz: NDArray) -> bool:
    """True where sorted positions (n, 3) share no place and have no hole."""
    gaps = distances(positions_xyz)
    return not len(gaps) or (float(gaps.min()) > SAME_PLACE_MM and not holes(gaps))


def is_even(positions_xyz: NDArray) -> bool:
    """True where no distance differs from the usual one by more than `TOO_UNEVEN`."""
    gaps = distances(positions_xyz)
    if not len(gaps):
        return True
    low = float(gaps.min())
    return low > SAME_PLACE_MM and float(np.abs(gaps - np.median(gaps)).max()) <= TOO_UNEVEN * low


def even_grid(positions_xyz: NDArray, name: str) -> SliceGrid:
    """The grid of at least two sorted slice positions (n, 3).

    Raises:
        CaseError: slices are missing, or their distances leave no volume.
    """
    gaps = distances(positions_xyz)
    if missing := holes(gaps):
        _refuse_holes(positions_xyz, gaps, missing, name)
    step = (positions_xyz[-1] - positions_xyz[0]) / len(gaps)
    usual = float(np.median(gaps))
    grid = positions_xyz[0] + np.arange(len(positions_xyz))[:, None] * step
    off = float(np.linalg.norm(positions_xyz - grid, axis=1).max())
    if off > TOO_UNEVEN * usual:
        return _finest(positions_xyz, gaps, name)
    return SliceGrid(step, None, (f"slices lie up to {off:.2f} mm off an even grid",) if off > UNEVEN * usual else ())


def _refuse_holes(positions_xyz: NDArray, gaps: NDArray, missing: dict[int, int], name: str) -> None:
    first = next(iter(missing))
    others = f", and at {len(missing) - 1} further places" if len(missing) > 1 else ""
    place = ", ".join(f"{v:g}" for v in positions_xyz[first])
    raise CaseError(
        f"{name}: about {sum(missing.values())} slices are missing (the usual distance is {np.median(gaps):g} mm, "
        f"after slice {first + 1} it is {gaps[first]:g} mm, x, y, z = {place}{others}); copy the whole series."
    )


def _finest(positions_xyz: NDArray, gaps: NDArray, name: str) -> SliceGrid:
    """An even grid at the finest distance between the first and the last slice, and each point's place."""
    low, high = float(gaps.min()), float(gaps.max())
    line = positions_xyz[-1] - positions_xyz[0]
    length = float(np.linalg.norm(line))
    along = (positions_xyz - positions_xyz[0]) @ line / length
    aside = float(np.linalg.norm(positions_xyz - positions_xyz[0] - along[:, None] * line / length, axis=1).max())
    if aside > TOO_UNEVEN * low or high > WIDEST_MM or high > COARSENING * low:
        raise CaseError(
            f"{name}: slice distance varies from {low:g} to {high:g} mm and slices lie up to {aside:g} mm beside a "
            "line; reconstruct it with one distance or ingest the parts as series of their own."
        )
    count = int(np.floor(length / low + 1e-6)) + 1
    places = np.interp(np.arange(count) * low, along, np.arange(len(along)))
    return SliceGrid(
        line / length * low,
        places,
        (f"slice distance varies from {low:g} to {high:g} mm: interpolated at {low:g} mm from the true positions",),
    )


def on_places(array: NDArray[np.int16], places: NDArray[np.float64]) -> NDArray[np.int16]:
    """Slices (n, y, x) interpolated linearly at fractional slice numbers (m,)."""
    out = np.empty((len(places), *array.shape[1:]), np.int16)
    near = np.where(np.abs(places - np.rint(places)) < 1e-5, np.rint(places), places)
    lower = np.floor(near).astype(int)
    for plane, low, weight in zip(out, lower, (near - lower).astype(np.float32), strict=True):
        if weight == 0:
            plane[:] = array[low]
        else:
            below = array[low].astype(np.float32)
            np.rint(below + weight * (array[low + 1] - below), out=plane, casting="unsafe")
    return out
