"""Alike points of different cases, found without comparing all with all: by locality-sensitive hashing.

A table's key is the side of some fixed random hyperplanes that a neighbourhood lies on (Charikar 2002, Similarity
estimation techniques from rounding algorithms), and for stretched volumes its place; what shares a key in any table is
compared. All of it is whole numbers below 2^24, so every machine finds the same, and no limit depends on other cases.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.duplicates.signature import CUBE, OFFSETS, SAMPLES, Points

SEED = 4417
BLOCK = 1 << 17  # pairs of points compared at once
PLACE_CELL = 16  # voxels of the cube: places within it share a key
TYPICAL = 0.4  # levels per voxel that a turned neighbourhood rises along each axis, on average
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Search:
    """`correlation` above which two neighbourhoods are alike, and how many tables of how many hyperplanes (at most 32)
    are looked into; `placed`: alike points lie at about one place of the stretched volume, too."""

    correlation: float
    tables: int
    bits: int
    placed: bool


@dataclass(frozen=True)
class Cloud:
    """The points of many cases: `levels` (n, 64), `places` and `turns` (n, 3), whose each is (`owner`), `fresh` or not.
    Fresh ones come last."""

    levels: NDArray[np.float32]
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
            for name, kind in (("levels", np.float32), ("places", np.int64), ("turns", np.int64))
        )
        return cls(levels, places, turns, owner, fresh[owner])


def alike_points(cloud: Cloud, search: Search) -> tuple[Indices, Indices]:
    """Indices of alike points of two cases, the case of smaller index first; one of the cases is fresh."""
    sums = cloud.levels.sum(1)
    spread = SAMPLES * np.einsum("ij,ij->i", cloud.levels, cloud.levels) - sums**2
    found = [np.zeros(0, np.int64)]
    for table in range(search.tables):
        alike = []
        for one, other in _sharing(_keys(cloud, search, table), cloud.fresh):
            differ = cloud.owner[one] != cloud.owner[other]
            one, other = one[differ], other[differ]
            product = np.einsum("ij,ij->i", cloud.levels[one], cloud.levels[other])
            common = (SAMPLES * product - sums[one] * sums[other]).astype(float)
            needed = search.correlation**2 * spread[one].astype(float) * spread[other]
            near = (common > 0) & (common * common > needed)
            alike.append(one[near].astype(np.int64) * len(sums) + other[near])
        found = [np.unique(np.concatenate([*found, *alike]))]
    one, other = np.divmod(found[0], max(1, len(sums)))
    first = cloud.owner[one] < cloud.owner[other]
    return np.where(first, one, other), np.where(first, other, one)


def _keys(cloud: Cloud, search: Search, table: int) -> NDArray[np.uint32]:
    """What each point shares with points that are likely alike, in one table."""
    random = np.random.Generator(np.random.Philox(key=[SEED, table]))
    planes = random.integers(0, 2, (SAMPLES, search.bits)).astype(np.int64) * 2 - 1
    planes = SAMPLES * planes - planes.sum(0)
    ramp = np.add.outer(np.add.outer(OFFSETS, OFFSETS), OFFSETS).reshape(-1).astype(np.int64)
    sides = cloud.levels @ planes.astype(np.float32) > TYPICAL * (ramp @ planes)
    keys = np.zeros(len(sides), np.uint32)
    for bit in range(search.bits):
        keys |= sides[:, bit].astype(np.uint32) << np.uint32(bit)
    if not search.placed:
        return keys
    places = np.where(cloud.turns < 0, CUBE - 1 - cloud.places, cloud.places)
    cells = (places + random.integers(0, PLACE_CELL, 3)) // PLACE_CELL
    return (keys << np.uint32(6)) | (cells @ np.array([16, 4, 1])).astype(np.uint32)


def _sharing(keys: NDArray[np.uint32], fresh: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices]]:
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
