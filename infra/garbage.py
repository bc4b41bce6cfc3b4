"""Garbage: what may go from a lake, how much it is, and taking it away.

A thing is one object, or a folder of objects with or without a seal. Whoever uses a sealed thing again touches its seal
first (`Lake.touch`), which sets its age to nothing: a thing of which any object is younger than the grace period is
never garbage, neither when it is found nor, looked at once more, when it is removed. Its seal goes first, so that what
a killed removal leaves is unfinished to every reader and is found again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from infra.lake import Lake
from infra.local_files import PARTIAL
from infra.stored_object import StoredObject


@dataclass(frozen=True)
class Garbage:
    """One thing that may go: what it is, where it lies, why it may, how much it is, when it was written or used last.

    `folder` means that every object below `key` belongs to it; `seal` is the key of its seal, whether it is there or
    not, "" for what is never sealed.
    """

    kind: str
    key: str
    why: str
    objects: int
    bytes: int
    newest: datetime
    folder: bool = False
    seal: str = ""


@dataclass
class Gathered:
    """What a listing has of one thing."""

    objects: int
    bytes: int
    newest: datetime
    sealed: datetime | None = None

    def as_garbage(self, kind: str, key: str, why: str, *, folder: bool = True, seal: str = "") -> Garbage:
        """The thing as garbage."""
        return Garbage(kind, key, why, self.objects, self.bytes, self.newest, folder, seal)


def gather(
    objects: Iterable[StoredObject], thing_of: Callable[[str], str], seal_of: Callable[[str], str] = lambda thing: ""
) -> dict[str, Gathered]:
    """Listed objects by the thing that they belong to; those of which `thing_of` says "" are left out."""
    found: dict[str, Gathered] = {}
    for one in objects:
        if not (thing := thing_of(one.key)):
            continue
        at = found.setdefault(thing, Gathered(0, 0, one.modified))
        at.objects, at.bytes, at.newest = at.objects + 1, at.bytes + one.size, max(at.newest, one.modified)
        if one.key == seal_of(thing):
            at.sealed = one.modified
    return found


def single(kind: str, one: StoredObject, why: str) -> Garbage:
    """One object as garbage."""
    return Garbage(kind, one.key, why, 1, one.size, one.modified)


def partial_garbage(lake: Lake, cutoff: datetime) -> list[Garbage]:
    """What writers and pulls that were killed before the cutoff left in a folder; a bucket shows nothing of theirs."""
    if lake.bucket:
        return []
    why = "its writer was stopped"
    return [
        single("partial", one, why) for one in lake.objects() if one.key.endswith(PARTIAL) and one.modified < cutoff
    ]


def remove(lake: Lake, thing: Garbage, cutoff: datetime) -> bool:
    """Take a thing away, its seal first; false where it was written or used since it was found, and stays."""
    if not thing.folder:
        lake.delete_all([thing.key])
        return True
    place = thing.seal.rpartition("/")[0] if thing.seal else thing.key
    there = [one for one in lake.objects(place) if one.key == thing.seal or one.key.startswith(f"{thing.key}/")]
    if any(one.modified >= cutoff for one in there):
        return False
    if thing.seal:
        lake.delete(thing.seal)
    lake.delete_all([*(one.key for one in there), *filter(None, [thing.seal])])
    return True
