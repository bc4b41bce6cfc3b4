"""Candidates: the pairs of cases whose signatures share points in the same arrangement.

Points are alike if their neighbourhoods are. Two cases are candidates if enough alike points lie at one shift from one
another, allowing for a mirrored copy; in the volumes stretched to a cube, at no shift. Whether a pair is one depends on
its two signatures alone. Hashing proposes pairs; all points of these are compared. How alike and how many points must
be keeps chance away, as the voxels of every candidate are read: of 2618 pairs of unlike real scans and copies none was
a candidate, and a tenth would be at a correlation of 0.93 and three points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preprocessing.duplicates.alike import Cloud, Indices, Search, alike_points, all_alike_points
from preprocessing.duplicates.signature import CUBE, read_signature

CELL = 4  # voxels: shifts within it count as one
OWN = Search(correlation=0.975, tables=12, bits=32, placed=False, enough=4)
STRETCHED = Search(correlation=0.96, tables=12, bits=16, placed=True, enough=3)
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
    read = [read_signature(text) for text in signatures]
    fresh = np.asarray(new, bool)
    found: dict[Pair, list[Arrangement]] = {}
    if fresh.any():
        for kind, search in enumerate((OWN, STRETCHED)):
            cloud = Cloud.of([points[kind] for points in read], fresh)
            proposed = Matches.of(cloud, alike_points(cloud, search), search).best(PROPOSED)
            alike = all_alike_points(cloud, [pair for pair, _ in proposed], search.correlation)
            for pair, arrangement in Matches.of(cloud, alike, search).best(search.enough):
                found.setdefault(pair, []).append(arrangement)
    return found


@dataclass(frozen=True)
class Matches:
    """Alike points of pairs of cases: `pair` (n, 2), `mirror` and `shift` (n, 3)."""

    pair: NDArray[np.intp]
    mirror: NDArray[np.int64]
    shift: NDArray[np.int64]
    stretched: bool

    @classmethod
    def of(cls, cloud: Cloud, alike: tuple[Indices, Indices], search: Search) -> "Matches":
        """The matches that these alike points of a cloud make; pairs with fewer than PROPOSED of them are left out."""
        left, right = alike
        one, other = cloud.owner[left], cloud.owner[right]
        _, nth, count = np.unique(
            one * (cloud.owner.max(initial=0) + 1) + other, return_inverse=True, return_counts=True
        )
        some = count[nth] >= PROPOSED
        left, right = left[some], right[some]
        mirror = cloud.turns[left] * cloud.turns[right]
        shift = cloud.places[left] - mirror * cloud.places[right]
        kept = np.ones(len(left), bool)
        if search.placed:
            kept = (np.abs(shift - np.where(mirror < 0, CUBE - 1, 0)) <= CELL // 2).all(1)
        return cls(np.stack([one[some], other[some]], 1)[kept], mirror[kept], shift[kept], search.placed)

    def best(self, enough: int) -> Iterator[tuple[Pair, Arrangement]]:
        """Every pair with enough points in one arrangement, and the arrangement that most of its points have."""
        if not len(self.pair):
            return
        frame = pd.DataFrame({"first": self.pair[:, 0], "second": self.pair[:, 1]})
        frame["way"] = (self.mirror < 0) @ np.array([1, 2, 4])
        frame[["z", "y", "x"]] = 0 if self.stretched else self.shift
        found = []
        for stagger in product((0, CELL // 2), repeat=3):
            cell = {f"{a}_cell": (frame[a] + s) // CELL for a, s in zip("zyx", stagger, strict=True)}
            groups = frame.assign(**cell).groupby(["first", "second", "way", *cell])
            cells = groups[["z", "y", "x"]].mean().assign(count=groups.size())
            found.append(cells[cells["count"] >= enough])
        ranked = pd.concat(found).reset_index().sort_values(["count", "way", "z", "y", "x"], ascending=False)
        chosen = ranked.drop_duplicates(["first", "second"]).sort_values(["first", "second"])
        for first, second, way, *shift in chosen[["first", "second", "way", "z", "y", "x"]].to_numpy().tolist():
            z, y, x = (-1 if int(way) >> axis & 1 else 1 for axis in range(3))
            dz, dy, dx = (round(value) for value in shift)
            yield (int(first), int(second)), Arrangement((z, y, x), None if self.stretched else (dz, dy, dx))
