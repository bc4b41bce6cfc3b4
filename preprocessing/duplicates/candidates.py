"""Candidates: the pairs of cases whose signatures share points in the same arrangement.

Points are alike if their neighbourhoods are. Two cases are candidates if enough alike points lie at one shift from one
another, allowing for a mirrored copy; in the volumes stretched to a cube, at no shift. Enough is more where both have
more points in what the arrangement makes them share: of a small part few can be alike, of two whole scans a few are by
chance. Whether a pair is a candidate depends on its two signatures alone. Hashing proposes pairs; all points of these
are compared. The voxels of every candidate are read, so there must be few of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from preprocessing.duplicates.alike import Cloud, Search, alike_points, all_alike_points
from preprocessing.duplicates.signature import CUBE, Points, read_signature

NEAR = 1  # voxels: shifts that differ by no more along each axis count as one
CELL = 4  # voxels: the same for a proposal; any shifts that count as one share a cell of one of the staggered grids
OWN = Search(correlation=0.975, tables=12, bits=32, placed=False, enough=0.5)
STRETCHED = Search(correlation=0.96, tables=12, bits=16, placed=True, enough=0.3)
PROPOSED = 2  # alike points in one arrangement, found by hashing, for which all points of two cases are compared
Pair = tuple[int, int]


@dataclass(frozen=True)
class Arrangement:
    """How the second volume of a pair may lie over the first: mirrored along the axes where `mirror` is -1; a point of
    the first is `mirror` times the same point of the second, plus `shift` voxels. No shift: stretched onto one grid."""

    mirror: tuple[int, int, int]
    shift: tuple[int, int, int] | None


def candidate_pairs(signatures: Sequence[str], new: Sequence[bool]) -> dict[Pair, list[Arrangement]]:
    """The pairs i < j of signatures that may be of one scan, at least one of them `new`, and how they may lie."""
    fresh = np.asarray(new, bool)
    found: dict[Pair, list[Arrangement]] = {}
    if fresh.any():
        for kind, search in enumerate((OWN, STRETCHED)):
            points = [read_signature(text)[kind] for text in signatures]
            for i, j in proposed_pairs(Cloud.of(points, fresh), search):
                arrangement = arranged(points[i], points[j], search)
                if arrangement:
                    found.setdefault((i, j), []).append(arrangement)
    return found


def proposed_pairs(cloud: Cloud, search: Search) -> list[Pair]:
    """The pairs i < j of cases of which hashing finds as many as PROPOSED alike points in one arrangement."""
    one, other = alike_points(cloud, search)
    number = int(cloud.owner.max(initial=0)) + 1
    pair = cloud.owner[one].astype(np.int64) * number + cloud.owner[other]
    ordered = np.sort(pair)
    repeated = np.unique(ordered[PROPOSED - 1 :][ordered[PROPOSED - 1 :] == ordered[: len(ordered) - PROPOSED + 1]])
    del ordered
    some = _among(repeated, pair)
    pair, one, other = pair[some], one[some], other[some]
    mirror = cloud.turns[one] * cloud.turns[other]
    shift = cloud.places[one] - mirror * cloud.places[other]
    if search.placed:
        some = _in_place(mirror, shift)
        pair, mirror, shift = pair[some], mirror[some], np.zeros_like(shift[some])
    way = (mirror < 0) @ np.array([1, 2, 4], np.int16)
    proposed = np.zeros(0, np.int64)
    for stagger in product((0, CELL // 2), repeat=3):
        cells = np.column_stack([way, (shift + np.array(stagger, np.int16)) // CELL])
        proposed = np.union1d(proposed, _repeated_rows(pair, cells))
    return [(int(code // number), int(code % number)) for code in proposed]


def _among(some: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which values are among some, which are sorted."""
    if not len(some):
        return np.zeros(len(values), bool)
    return some[np.minimum(np.searchsorted(some, values), len(some) - 1)] == values


def _repeated_rows(pair: NDArray[np.int64], cells: NDArray[np.int16]) -> NDArray[np.int64]:
    """The pairs that have one of their rows of cells PROPOSED times or more."""
    order = np.lexsort((*cells.T, pair))
    pair, cells = pair[order], cells[order]
    last, first = slice(PROPOSED - 1, None), slice(0, max(0, len(pair) - PROPOSED + 1))
    return np.unique(pair[last][(pair[last] == pair[first]) & (cells[last] == cells[first]).all(1)])


def _in_place(mirror: NDArray[np.int8], shift: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which alike points of two stretched volumes lie where a copy's would."""
    return (np.abs(shift - np.where(mirror < 0, CUBE - 1, 0)) <= NEAR).all(1)


def arranged(one: Points, other: Points, search: Search) -> Arrangement | None:
    """The arrangement in which most points of two cases are alike; none where these are not enough."""
    mine, theirs = all_alike_points(one, other, search.correlation)
    mirror = one.turns[mine] * other.turns[theirs]
    shift = one.places[mine] - mirror * other.places[theirs]
    if search.placed:
        kept = _in_place(mirror, shift)
        mine, theirs, mirror, shift = mine[kept], theirs[kept], mirror[kept], np.zeros_like(shift[kept])
    if len(mine) < PROPOSED:
        return None
    together = (np.abs(shift[:, None] - shift) <= NEAR).all(2) & (mirror[:, None] == mirror).all(2)
    best = int(together.sum(1).argmax())
    members = together[best]
    count = min(len(np.unique(side[members])) for side in (mine, theirs))
    z, y, x = mirror[best].tolist()
    moved = np.rint(shift[members].mean(0)).astype(int)
    shared = _shared_points(one.places, mirror[best] * other.places + moved, search.placed)
    if count < PROPOSED or count * count < search.enough * shared:
        return None
    dz, dy, dx = moved.tolist()
    return Arrangement((z, y, x), None if search.placed else (dz, dy, dx))


def _shared_points(one: NDArray, other: NDArray, whole: bool) -> int:
    """How many points of two cases, arranged, lie in what the others span: the smaller number of both."""
    if whole:
        return min(len(one), len(other))
    return min(
        int(((a >= b.min(0) - NEAR) & (a <= b.max(0) + NEAR)).all(1).sum()) for a, b in ((one, other), (other, one))
    )
