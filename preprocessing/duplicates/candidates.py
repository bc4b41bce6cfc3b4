"""Candidates: the pairs of cases whose signatures share points in the same arrangement.

Points are alike if their neighbourhoods are. Two cases are candidates if enough alike points lie at one shift from one
another, allowing for a mirrored copy; in the volumes stretched to a cube, at no shift. Whether a pair is one depends on
its two signatures alone. How many are enough keeps chance away: the voxels of every candidate are compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preprocessing.duplicates.alike import Cloud, Search, alike_points
from preprocessing.duplicates.signature import CUBE, Points, read_signature

CELL = 4  # voxels: shifts within it count as one
OWN = Search(correlation=0.98, tables=16, bits=32, placed=False)
STRETCHED = Search(correlation=0.96, tables=16, bits=16, placed=True)
ENOUGH = {OWN: 4, STRETCHED: 3}  # alike points in one arrangement
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
            matches = _Matches.of([points[kind] for points in read], fresh, search)
            for pair, arrangement in matches.best():
                found.setdefault(pair, []).append(arrangement)
    return found


@dataclass(frozen=True)
class _Matches:
    """Alike points of two cases: `pair` (n, 2), `mirror` and `shift` (n, 3)."""

    pair: NDArray[np.intp]
    mirror: NDArray[np.int64]
    shift: NDArray[np.int64]
    search: Search

    @classmethod
    def of(cls, cases: list[Points], fresh: NDArray[np.bool_], search: Search) -> "_Matches":
        cloud = Cloud.of(cases, fresh)
        left, right = alike_points(cloud, search)
        mirror = cloud.turns[left] * cloud.turns[right]
        shift = cloud.places[left] - mirror * cloud.places[right]
        kept = np.ones(len(left), bool)
        if search.placed:
            kept = (np.abs(shift - np.where(mirror < 0, CUBE - 1, 0)) <= CELL // 2).all(1)
        return cls(np.stack([cloud.owner[left], cloud.owner[right]], 1)[kept], mirror[kept], shift[kept], search)

    def best(self) -> Iterator[tuple[Pair, Arrangement]]:
        """Every pair with enough points in one arrangement, and the arrangement that most of its points have."""
        frame = pd.DataFrame({"first": self.pair[:, 0], "second": self.pair[:, 1]})
        frame["way"] = (self.mirror < 0) @ np.array([1, 2, 4])
        frame[["z", "y", "x"]] = self.shift
        if self.search.placed:
            frame[["z", "y", "x"]] = 0
        enough = ENOUGH[self.search]
        frame = frame[frame.groupby(["first", "second"])["way"].transform("size") >= enough]
        found = []
        for stagger in product((0, CELL // 2), repeat=3):
            cell = {f"{a}_cell": (frame[a] + s) // CELL for a, s in zip("zyx", stagger, strict=True)}
            groups = frame.assign(**cell).groupby(["first", "second", "way", *cell])
            found.append(groups[["z", "y", "x"]].mean().assign(count=groups.size()).query("count >= @enough"))
        ranked = pd.concat(found).reset_index().sort_values(["count", "way", "z", "y", "x"], ascending=False)
        chosen = ranked.drop_duplicates(["first", "second"]).sort_values(["first", "second"])
        for first, second, way, *shift in chosen[["first", "second", "way", "z", "y", "x"]].to_numpy().tolist():
            z, y, x = (-1 if int(way) >> axis & 1 else 1 for axis in range(3))
            dz, dy, dx = (round(value) for value in shift)
            yield (int(first), int(second)), Arrangement((z, y, x), None if self.search.placed else (dz, dy, dx))
