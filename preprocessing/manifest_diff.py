"""The diff of two data versions: which cases came, went or are not what they were.

A case is the same one in both if source, folder and listed id are the same, whatever name it is shown under. Changed is
one that is sealed in both, from another input or with other bytes; moved is one of another split.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from infra.errors import UserError
from infra.lake import Lake
from preprocessing.decisions import CaseId, case_ids
from preprocessing.manifest import IDENTITY, Manifest, manifest_numbers, read_fingerprint, read_manifest
from preprocessing.recipe import Recipe

Kind = Literal["added", "withdrawn", "changed", "now sealed", "now quarantined", "another reason", "moved",
               "another cluster", "renamed"]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
COLUMNS = (*IDENTITY, "root")
SHORTEST = 4  # characters of a fingerprint that name it
FINGERPRINT = re.compile(rf"[0-9a-f]{{{SHORTEST},32}}")


class Seen(NamedTuple):
    """What one data version says of a case, by which it counts as the same or not."""

    case: str
    status: str
    reason: str | None
    input: str
    seal: str
    split: str
    cluster: str


class CaseChange(NamedTuple):
    """A case that is not what it was; None where a version does not have it."""

    source: str
    case: str
    kinds: tuple[Kind, ...]
    before: Seen | None
    after: Seen | None


@dataclass(frozen=True)
class ManifestDiff:
    """Two data versions and the cases that differ, by source and case."""

    before: Manifest
    after: Manifest
    cases: tuple[CaseChange, ...]

    def counts(self) -> dict[str, dict[Kind, int]]:
        """{source: {kind: cases}}, only what is not zero; a case counts under each of its kinds."""
        counts: dict[str, Counter[Kind]] = {}
        for change in self.cases:
            counts.setdefault(change.source, Counter()).update(change.kinds)
        return {source: {kind: of[kind] for kind in KINDS if of[kind]} for source, of in counts.items()}


def read_diff(lake: Lake, recipe: Recipe, before: str = "", after: str = "") -> ManifestDiff:
    """The diff of two data versions, each named by its manifest's number or by the start of its fingerprint.

    Without names: of the newest version and the one before it; without `after`: up to the newest.

    Raises:
        UserError: there is no such version, or more than one.
    """
    numbers = manifest_numbers(lake, recipe)
    if not numbers:
        raise UserError(f"{lake.url} has no manifest of recipe {recipe.name}: nothing was ingested yet")
    new = find_version(lake, recipe, after, numbers) if after else numbers[-1]
    old = find_version(lake, recipe, before, numbers) if before else version_before(lake, recipe, new, numbers)
    return diff(*(read_manifest(lake, recipe, number, COLUMNS) for number in (old, new)))


def find_version(lake: Lake, recipe: Recipe, name: str, numbers: Sequence[int]) -> int:
    """The number of the manifest of this number, or of the newest whose fingerprint starts so.

    Raises:
        UserError: there is none, or fingerprints of several start so.
    """
    if name.isdecimal() and int(name) in numbers:
        return int(name)
    found: dict[str, int] = {}
    if FINGERPRINT.fullmatch(name):
        prints = ((read_fingerprint(lake, recipe, number), number) for number in numbers)
        found = {text: number for text, number in prints if text.startswith(name)}
    if len(found) > 1:
        raise UserError(f"{name} may be {' or '.join(sorted(found))}; give more of it")
    if not found:
        raise UserError(
            f"{lake.url} has no data version {name} of recipe {recipe.name}: give a manifest's number "
            f"({numbers[0]} to {numbers[-1]}) or at least {SHORTEST} characters of a fingerprint"
        )
    return next(iter(found.values()))


def version_before(lake: Lake, recipe: Recipe, number: int, numbers: Sequence[int]) -> int:
    """The number of the newest manifest before this one that has another fingerprint; 0 where there is none."""
    own = read_fingerprint(lake, recipe, number)
    earlier = (other for other in reversed(numbers) if other < number)
    return next((other for other in earlier if read_fingerprint(lake, recipe, other) != own), 0)


def diff(before: Manifest, after: Manifest) -> ManifestDiff:
    """What changed from one manifest to another; of both only COLUMNS are looked at."""
    old, new = _by_id(before), _by_id(after)
    found = []
    for case in old.keys() | new.keys():
        was, now = old.get(case), new.get(case)
        if was != now:
            found.append(CaseChange(case[0], (now or was or case)[0], _kinds(was, now), was, now))
    return ManifestDiff(before, after, tuple(sorted(found, key=lambda change: change[:2])))


def _by_id(manifest: Manifest) -> dict[CaseId, Seen]:
    rows = manifest.rows
    seen = map(Seen._make, zip(*(rows[name] for name in Seen._fields), strict=True))
    return dict(zip(case_ids(rows), seen, strict=True))


def _kinds(was: Seen | None, now: Seen | None) -> tuple[Kind, ...]:
    if was is None or now is None:
        return ("added",) if was is None else ("withdrawn",)
    sealed = was.status == "sealed", now.status == "sealed"
    found: dict[Kind, bool] = {
        "changed": all(sealed) and (was.input, was.seal) != (now.input, now.seal),
        "now sealed": sealed == (False, True),
        "now quarantined": sealed == (True, False),
        "another reason": not any(sealed) and was.reason != now.reason,
        "moved": was.split != now.split,
        "another cluster": was.cluster != now.cluster,
        "renamed": was.case != now.case,
    }
    return tuple(kind for kind, there in found.items() if there)
