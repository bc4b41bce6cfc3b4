"""Duplicates, measured: how many copies of a scan are found by what was done to them, and how many others are joined.

Copies of all real scans and of phantoms are made as another data set would hold them and sought among all scans; the
kinds of copies are dealt out, so that each is made of a third of the scans. What is no copy is sought as well: other
people, other visits, bodies alike. Two visits of one person count neither way: a person is in one split in any case.
The scans are in two halves, a and b: the last rows choose the agreement that counts as one scan on one half and judge
it on the other. A copy is found if the scan that it was made from is; agreement is the lowest of copies that became
candidates, and the highest of others.
"""

import multiprocessing
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.duplicates_copies import COPIES, VISITS, Scan, copy_of
from benchmarks.duplicates_scale import cost
from benchmarks.duplicates_scans import coarse, half, phantoms, real_scans, relation, same_scan
from flows import terminal
from preprocessing.duplicates.candidates import Arrangement, candidate_pairs
from preprocessing.duplicates.same_scan import SAME_AGREEMENT, agreement
from preprocessing.duplicates.signature import signature

REAL_CTS = True
TITLE = "duplicates: pairs that are one scan and pairs that are not, and how many are joined, by half of the scans"
MARGIN = 0.05  # of agreement, above all pairs of a half that are not one scan: what a choice on that half leaves
NO_CANDIDATE = -1.0
DEAL = 3  # a third of the kinds of copies for each scan, in turn
Row = dict[str, Any]
Stored = Mapping[str, tuple[NDArray[np.int16], str]]


@dataclass(frozen=True)
class Compared:
    """Two scans, what was done to the second ("" for another's copy), whether they are one, and their agreement."""

    what: str
    one: str
    other: str
    same: bool | None
    agreement: float


def run(data: Path, quick: bool = False) -> list[Row]:
    """Recall by copy, joins by kind of others, thresholds judged on the half that did not choose them, and cost."""
    real = real_scans(data, ("chest-4mm", "spine") if quick else ("",))
    scans = real | phantoms((6,)) if quick else real | phantoms()
    changes = dealt_out(scans, [*COPIES, *VISITS][:2], 1) if quick else dealt_out(scans, [*COPIES, *VISITS], DEAL)
    stored = stored_scans(scans)
    compared = [*compare_scans(stored), *compare_copies(scans, stored, changes)]
    texts = [text for _, text in stored.values()]
    sizes = ((100, 10),) if quick else ((10_000, 100), (10_000, 10_000))
    return [*rows_of(compared), *judged(compared), *(_cost_row(texts, *size) for size in sizes)]


def main() -> None:
    """Print the table of the folder that MEDDIFF_TEST_DATA names."""
    import os

    for row in run(Path(os.environ["MEDDIFF_TEST_DATA"])):
        print(*(f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row.values()), sep=" | ", flush=True)


def stored_scans(scans: Mapping[str, Scan]) -> dict[str, tuple[NDArray[np.int16], str]]:
    """The level of every scan that its signature is taken from, and the signature."""
    told = track(scans.items(), "scans", len(scans), console=terminal.err())
    volumes = {name: coarse(*scan) for name, scan in told}
    return {name: (volume, signature(volume)) for name, volume in volumes.items()}


def compare_scans(stored: Stored) -> list[Compared]:
    """All pairs of stored scans."""
    names = list(stored)
    found = candidate_pairs([text for _, text in stored.values()], [True] * len(names))
    rows = []
    for i, j in combinations(range(len(names)), 2):
        one, other = names[i], names[j]
        value = _agreement(stored[one][0], stored[other][0], found.get((i, j), ()))
        same = same_scan(one, other)
        rows.append(Compared("known pairs" if same else relation(one, other), one, other, same, value))
    return rows


def dealt_out(scans: Collection[str], changes: Sequence[str], deal: int) -> dict[str, Sequence[str]]:
    """Every `deal`-th of the changes for each scan, beginning with the next one each time."""
    return {name: changes[n % deal :: deal] for n, name in enumerate(scans)}


def compare_copies(scans: Mapping[str, Scan], stored: Stored, changes: Mapping[str, Collection[str]]) -> list[Compared]:
    """Copies and visits of every scan with all stored scans; on both cores. What is no candidate counts with its own
    scan only."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=_keep, initargs=(stored, changes)) as pool:
        compared = pool.map(_compare_copies_of, scans.items())
        told = track(compared, "copies", len(scans), console=terminal.err())
        return [row for rows in told for row in rows]


_kept: dict[str, Any] = {}


def _keep(stored: Stored, changes: Mapping[str, Collection[str]]) -> None:
    _kept.update(stored=stored, changes=changes)


def _compare_copies_of(item: tuple[str, Scan]) -> list[Compared]:
    return copies_against(*item, _kept["stored"], _kept["changes"][item[0]])


def copies_against(name: str, scan: Scan, stored: Stored, changes: Collection[str]) -> list[Compared]:
    """Copies and visits of one scan, with it and with the stored scans that they are candidates with."""
    copies = {what: coarse(*copy_of(scan, what)) for what in changes}
    texts = [text for _, text in stored.values()] + [signature(copy) for copy in copies.values()]
    found = candidate_pairs(texts, [n >= len(stored) for n in range(len(texts))])
    rows = []
    for j, (what, copy) in enumerate(copies.items(), len(stored)):
        for i, (other, (volume, _)) in enumerate(stored.items()):
            if other == name or (i, j) in found:
                value = _agreement(volume, copy, found.get((i, j), ()))
                same = same_scan(name, other)
                same = None if same and what in VISITS else same
                rows.append(Compared(what if name == other else "", name, other, same, value))
    return rows


def _agreement(one: NDArray[np.int16], other: NDArray[np.int16], arrangements: Iterable[Arrangement]) -> float:
    return max((agreement(one, other, arrangement) for arrangement in arrangements), default=NO_CANDIDATE)


def rows_of(compared: Collection[Compared]) -> list[Row]:
    """One row per copy of a scan and per kind of pairs that are not one scan."""
    rows = []
    for what in dict.fromkeys(pair.what for pair in compared if pair.what):
        rows.append(_row(what, [pair for pair in compared if pair.what == what]))
    others = [pair for pair in compared if not pair.what and pair.same is False]
    return [*rows, _row("copies and other scans", others)] if others else rows


def _row(what: str, pairs: Collection[Compared]) -> Row:
    joined = [pair for pair in pairs if pair.agreement >= SAME_AGREEMENT]
    same = {pair.same for pair in pairs} == {True}
    extreme = min if same else max
    value = extreme((p.agreement for p in pairs if p.agreement > NO_CANDIDATE), default=None)
    said = {(True,): "yes", (False,): "no"}.get(tuple({pair.same for pair in pairs}), "either")
    row: Row = {"what": what, "one scan": said, "pairs": len(pairs), "joined": len(joined)}
    row |= {"share": round(len(joined) / len(pairs), 3), "agreement": value if value is None else round(value, 3)}
    for name in "ab":
        row[f"half {name}"] = f"{sum(half(p.one) == name for p in joined)}/{sum(half(p.one) == name for p in pairs)}"
    return row | dict.fromkeys(("precision", "CPU s", "peak MB"))


def judged(compared: Collection[Compared]) -> list[Row]:
    """Recall and precision at the agreement in use, and on each half at the one that the other half chooses."""
    rows = [_judgement(f"in use: {SAME_AGREEMENT}", compared, SAME_AGREEMENT)]
    for chooser, judge in ("ab", "ba"):
        limit = chosen([pair for pair in compared if {half(pair.one), half(pair.other)} == {chooser}])
        judges = [pair for pair in compared if {half(pair.one), half(pair.other)} == {judge}]
        rows.append(_judgement(f"chosen on {chooser}: {limit:.2f}, judged on {judge}", judges, limit))
        rows.append(_judgement(f"in use: {SAME_AGREEMENT}, judged on {judge}", judges, SAME_AGREEMENT))
    return rows


def chosen(compared: Collection[Compared]) -> float:
    """The least agreement, in steps of 0.01, that lies MARGIN above all pairs that are not one scan."""
    highest = max((pair.agreement for pair in compared if pair.same is False), default=0.0)
    return float(np.ceil(round((max(highest, 0.0) + MARGIN) * 100, 6)) / 100)


def _judgement(what: str, pairs: Collection[Compared], limit: float) -> Row:
    wanted = [pair for pair in pairs if pair.same]
    joined = [pair for pair in pairs if pair.agreement >= limit and pair.same is not None]
    found = sum(pair.same for pair in joined)
    row: Row = {"what": what, "one scan": "", "pairs": len(wanted), "joined": len(joined)}
    row |= {"share": round(found / max(1, len(wanted)), 3), "agreement": None, "half a": None, "half b": None}
    return row | {"precision": round(found / max(1, len(joined)), 4), "CPU s": None, "peak MB": None}


def _cost_row(texts: list[str], count: int, new: int) -> Row:
    found, seconds, megabytes = cost(texts, count, new)
    empty = dict.fromkeys(("one scan", "pairs", "joined", "share", "agreement", "half a", "half b", "precision"))
    row: Row = {"what": f"{new} new of {count} made-up signatures ({found} candidates)"} | empty
    return row | {"CPU s": round(seconds, 1), "peak MB": round(megabytes)}


if __name__ == "__main__":
    main()
