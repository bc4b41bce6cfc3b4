"""The files of a data set by name, whatever holds them: what a layout is matched against.

A name is the whole path: a key of the lake (`raw/msd-lung/…/Task06_Lung.tar/Task06_Lung/imagesTr/lung_001.nii.gz`), an
absolute path of this machine, or a url, which may end in `#sha256=…`. A part of it may be an archive.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from re import Match, Pattern
from typing import NamedTuple


class FileEntry(NamedTuple):
    """Bytes of a file, a token that changes with them, and why it cannot be had where that is known."""

    size: int
    token: str
    problem: str = ""


class Files:
    """Names with their entries, sorted."""

    def __init__(self, entries: Mapping[str, FileEntry], read: Callable[[str], bytes]) -> None:
        self.entries = dict(sorted(entries.items()))
        self._read = read
        self._names = list(self.entries)
        self._by_tail: dict[int, dict[str, list[str]]] = {}

    def matching(self, pattern: Pattern[str]) -> Iterator[Match[str]]:
        """Every name in which the pattern is found, in order."""
        return (match for name in self.entries if (match := pattern.search(name)))

    def ending(self, tail: str, near: str = "") -> str | None:
        """The name that ends in the path `tail`; of several the one that shares the longest beginning with `near`."""
        depth = tail.count("/") + 1
        if depth not in self._by_tail:
            tails: dict[str, list[str]] = {}
            for name in self._names:
                tails.setdefault("/".join(name.split("/")[-depth:]), []).append(name)
            self._by_tail[depth] = tails
        found = self._by_tail[depth].get(tail, ())
        return max(found, key=lambda name: _shared(name, near), default=None)

    def below(self, folder: str) -> list[str]:
        """Every name in a folder or deeper, in order."""
        first, last = bisect_left(self._names, f"{folder}/"), bisect_left(self._names, f"{folder}0")
        return self._names[first:last]  # "0" is the letter after "/"

    def at(self, name: str) -> list[str]:
        """The file of this name, or every file in the folder of this name."""
        return [name] if name in self.entries else self.below(name)

    def read(self, name: str) -> bytes:
        """The bytes of a small file, such as a table.

        Raises:
            CaseError: it cannot be read.
        """
        return self._read(name)


def _shared(one: str, other: str) -> int:
    """How many letters two names have in common from the beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
