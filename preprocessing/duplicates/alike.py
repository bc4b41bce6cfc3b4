"""Alike points of different cases, most of them found without comparing all with all: by locality-sensitive hashing.

A table's key is the side of some fixed random hyperplanes that a neighbourhood lies on (Charikar 2002, Similarity
estimation techniques from rounding algorithms), and for stretched volumes its place; what shares a key in any table is
compared. Sums are of whole numbers below 2^24, so every machine finds the same, and no limit depends on other cases.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.duplicates.signature import CUBE, SAMPLES, Points

SEED = 4417
BLOCK = 1 << 13  # pairs of points compared at once
PLACE_CELL = 16  # voxels of the cube: places within it share a key
TYPICAL = np.array([-1.4, 0.0, 0.7, 0.7])  # levels, on average, by which turned neighbourhoods vary along each axis
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Search:
    """What is sought: neighbourhoods of more than this `correlation`, by `tables` of `bits` hyperplanes each (whole
    bytes, at most 56); `placed`: they lie at about one place of the stretched volume, too. `enough` of them in one
    arrangement make a candidate."""

    correlation: float
    tables: int
    bits: int
    placed: bool
    enough: int


@dataclass(frozen=True)
class Cloud:
    """The points of many cases as in `Points`, the case of each (`owner`) and whether that one is `fresh`; fresh points
    come last."""

    levels: NDArray[np.int16]
    places: NDArray[np.int64]
    turns: NDArray[np.int64]
    owner: Indices
    fresh: NDArray[np.bool_]

    @classmethod
    def of(cls, cases: list[Points], fresh: NDArray[np.bool_]) -> "Cloud":
        """The points of all cases, in the order of the cases but for the fresh ones."""
        order = np.argsort(fresh, kind="stable")
        owner = np.repeat(order, [len(cases[n].places) for n in order])
        levels, places, turns = (
            np.concatenate([getattr(cases[n], name) for n in order]).astype(kind)
            for name, kind in (("levels", np.int16), ("places", np.int64), ("turns", np.int64))
        )
        return cls(levels, places, turns, owner, fresh[owner])


def alike_points(cloud: Cloud, search: Search) -> tuple[Indices, Indices]:
    """Indices of alike points of two cases, the case of smaller index first, each pair once; one case is fresh."""
    keys = np.stack([keys_of(cloud, search, table) for table in range(search.tables)])
    alike = _Comparison.of(cloud, search.correlation)
    none = np.zeros(0, np.intp)
    found = [(none, none)]
    for table in range(search.tables):
        for one, other in sharing(keys[table], cloud.fresh):
            differ = cloud.owner[one] != cloud.owner[other]
            one, other = one[differ], other[differ]
            near = alike(one, other)
            one, other = one[near], other[near]
            first_seen = ~(keys[:table, one] == keys[:table, other]).any(0)
            found.append((one[first_seen], other[first_seen]))
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    first = cloud.owner[one] < cloud.owner[other]
    return np.where(first, one, other), np.where(first, other, one)


@dataclass(frozen=True)
class _Comparison:
    """Whether points correlate; `sums` and `spread` are of each point's levels."""

    levels: NDArray[np.int16]
    sums: NDArray[np.float64]
    spread: NDArray[np.float64]
    correlation: float

    @classmethod
    def of(cls, cloud: Cloud, correlation: float) -> "_Comparison":
        sums = cloud.levels.sum(1, dtype=float)
        spread = SAMPLES * np.square(cloud.levels).sum(1, dtype=float) - sums**2
        return cls(cloud.levels, sums, spread, correlation)

    def __call__(self, one: Indices, other: Indices) -> NDArray[np.bool_]:
        mine, theirs = (self.levels.take(points, 0) for points in (one, other))
        product = np.einsum("ij,ij->i", mine, theirs).astype(float)  # at most 64 x 15^2: fits int16
        common = SAMPLES * product - self.sums[one] * self.sums[other]
        return (common > 0) & (common * common > self.correlation**2 * self.spread[one] * self.spread[other])


def all_alike_points(cloud: Cloud, pairs: list[tuple[int, int]], correlation: float) -> tuple[Indices, Indices]:
    """The alike points of these pairs of cases, all with all compared; the first case's and the second's."""
    alike = _Comparison.of(cloud, correlation)
    none = np.zeros(0, np.intp)
    found = [(none, none)]
    mine = _points_by_case(cloud)
    for first, second in pairs:
        one, other = (side.ravel() for side in np.meshgrid(mine[first], mine[second], indexing="ij"))
        near = alike(one, other)
        found.append((one[near], other[near]))
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    return one, other


def _points_by_case(cloud: Cloud) -> dict[int, Indices]:
    begins = np.flatnonzero(np.diff(cloud.owner, prepend=-1))
    ends = np.append(begins[1:], len(cloud.owner))
    return {int(cloud.owner[a]): np.arange(a, b) for a, b in zip(begins, ends, strict=False)}


def keys_of(cloud: Cloud, search: Search, table: int) -> NDArray[np.uint64]:
    """What each point shares with points that are likely alike, in one table."""
    random = np.random.Generator(np.random.Philox(key=[SEED, table]))
    planes = random.integers(0, 2, (SAMPLES, search.bits)).astype(np.int64) * 2 - 1
    planes = SAMPLES * planes - planes.sum(0)
    middle = np.rint(np.add.outer(np.add.outer(TYPICAL, TYPICAL), TYPICAL).reshape(-1) * 10) @ planes / 10
    sides = cloud.levels.astype(np.float32) @ planes.astype(np.float32) > middle.astype(np.float32)
    packed = np.zeros((len(sides), 8), np.uint8)
    packed[:, : search.bits // 8] = np.packbits(sides, axis=1)
    keys = packed.view("<u8")[:, 0].astype(np.uint64)
    if not search.placed:
        return keys
    places = np.where(cloud.turns < 0, CUBE - 1 - cloud.places, cloud.places)
    cells = (places + random.integers(0, PLACE_CELL, 3)) // PLACE_CELL
    return keys << np.uint64(6) | (cells @ np.array([16, 4, 1])).astype(np.uint64)


def sharing(keys: NDArray[np.uint64], fresh: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices]]:
    """Blocks of pairs of indices with equal keys, each pair once, the second index fresh; fresh ones come last."""
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    start = np.repeat(begins, np.diff(begins, append=len(order)))
    at = np.flatnonzero(fresh[order])
    at = at[at > start[at]]
    ends = np.cumsum(at - start[at])
    for part in np.split(np.arange(len(at)), np.flatnonzero(np.diff(ends // BLOCK)) + 1):
        if len(part):
            count = at[part] - start[at[part]]
            second = np.repeat(at[part], count)
            first = start[second] + np.arange(len(second)) - np.repeat(np.cumsum(count) - count, count)
            yield order[first], order[second]
