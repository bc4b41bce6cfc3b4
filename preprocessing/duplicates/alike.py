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
ROWS = 1 << 15  # points whose keys are made at once
PLACE_CELL = 16  # voxels of the cube: places within it share a key
TYPICAL = np.array([-1.4, 0.0, 0.7, 0.7])  # levels, on average, by which turned neighbourhoods vary along each axis
Indices = NDArray[np.int32]


@dataclass(frozen=True)
class Search:
    """What is sought: neighbourhoods of more than this `correlation`, by `tables` of `bits` hyperplanes each (whole
    bytes, at most 56); `placed`: they lie at about one place of the stretched volume, too. Two cases are a candidate if
    their alike points of one arrangement, squared, are at least `enough` times the points that either has there."""

    correlation: float
    tables: int
    bits: int
    placed: bool
    enough: float


@dataclass(frozen=True)
class Cloud:
    """The points of many cases as in `Points`, the case of each (`owner`) and whether that one is `fresh`; fresh points
    come last."""

    levels: NDArray[np.uint8]
    places: NDArray[np.int16]
    turns: NDArray[np.int8]
    owner: Indices
    fresh: NDArray[np.bool_]

    @classmethod
    def of(cls, cases: list[Points], fresh: NDArray[np.bool_]) -> "Cloud":
        """The points of all cases, in the order of the cases but for the fresh ones."""
        order = np.argsort(fresh, kind="stable")
        owner = np.repeat(order, [len(cases[n].places) for n in order]).astype(np.int32)
        levels, places, turns = (
            np.concatenate([getattr(cases[n], name) for n in order]) for name in ("levels", "places", "turns")
        )
        return cls(levels, places, turns, owner, fresh[owner])


def alike_points(cloud: Cloud, search: Search) -> tuple[Indices, Indices]:
    """Indices of alike points of two cases, the case of smaller index first, each pair once; one case is fresh."""
    keys = np.stack([keys_of(cloud, search, table) for table in range(search.tables)])
    moments = _moments(cloud.levels)
    none = np.zeros(0, np.int32)
    found = [(none, none)]
    for table in range(search.tables):
        for one, other in sharing(keys[table], cloud.fresh):
            some = cloud.owner[one] != cloud.owner[other]
            one, other = one[some], other[some]
            product = np.einsum("ij,ij->i", *(cloud.levels[side].astype(np.int16) for side in (one, other)))
            some = _beyond(search.correlation, product, moments[:, one], moments[:, other])
            one, other = one[some], other[some]
            some = ~(keys[:table, one] == keys[:table, other]).any(0)
            one, other = one[some], other[some]
            first = cloud.owner[one] < cloud.owner[other]
            found.append((np.where(first, one, other), np.where(first, other, one)))
    one, other = (np.concatenate(side) for side in zip(*found, strict=True))
    return one, other


def all_alike_points(one: Points, other: Points, correlation: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The alike points of two cases, all with all compared: of every pair of them both indices."""
    product = one.levels.astype(np.float32) @ other.levels.astype(np.float32).T
    mine, theirs = _moments(one.levels), _moments(other.levels)
    mine, theirs = np.nonzero(_beyond(correlation, product, mine[:, :, None], theirs[:, None, :]))
    return mine, theirs


def _moments(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of every point the sum and, times SAMPLES squared, the variance of its levels: (2, points)."""
    out = np.empty((2, len(levels)), np.float32)
    for start in range(0, len(levels), ROWS):
        rows = slice(start, start + ROWS)
        out[0, rows] = levels[rows].sum(1, dtype=np.float32)
        out[1, rows] = SAMPLES * np.square(levels[rows], dtype=np.float32).sum(1)
    out[1] -= out[0] ** 2
    return out


def _beyond(correlation: float, product: NDArray, one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray:
    """Whether levels correlate more than that, from their scalar product (at most 64 x 15^2) and moments."""
    common = SAMPLES * product.astype(float) - one[0].astype(float) * other[0]
    return (common > 0) & (common * common > correlation**2 * (one[1].astype(float) * other[1]))


def keys_of(cloud: Cloud, search: Search, table: int) -> NDArray[np.uint64]:
    """What each point shares with points that are likely alike, in one table."""
    random = np.random.Generator(np.random.Philox(key=[SEED, table]))
    planes = random.integers(0, 2, (SAMPLES, search.bits)).astype(np.int64) * 2 - 1
    planes = SAMPLES * planes - planes.sum(0)
    middle = np.rint(np.add.outer(np.add.outer(TYPICAL, TYPICAL), TYPICAL).reshape(-1) * 10) @ planes / 10
    packed = np.zeros((len(cloud.levels), 8), np.uint8)
    for start in range(0, len(packed), ROWS):
        rows = slice(start, start + ROWS)
        sides = cloud.levels[rows].astype(np.float32) @ planes.astype(np.float32) > middle.astype(np.float32)
        packed[rows, : search.bits // 8] = np.packbits(sides, axis=1)
    keys = packed.view("<u8")[:, 0].astype(np.uint64)
    if not search.placed:
        return keys
    places = np.where(cloud.turns < 0, CUBE - 1 - cloud.places, cloud.places)
    cells = (places + random.integers(0, PLACE_CELL, 3)) // PLACE_CELL
    return keys << np.uint64(6) | (cells @ np.array([16, 4, 1])).astype(np.uint64)


def sharing(keys: NDArray[np.uint64], fresh: NDArray[np.bool_]) -> Iterator[tuple[Indices, Indices]]:
    """Blocks of pairs of indices with equal keys, each pair once, the second index fresh; fresh ones come last."""
    order = np.argsort(keys, kind="stable").astype(np.int32)
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
