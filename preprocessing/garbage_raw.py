"""Garbage of `raw/`: folders of a source's versions from which no kept manifest has a case.

What a folder holds beside cases (a table of the data set, the list of its cases) is named by no manifest. So a folder
goes only where it is certain what it was: its source has no case left, it holds a case of the phantom or a series of
the Imaging Data Commons, or each of its files is there in a newer version.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from infra.garbage import Garbage, gather
from infra.lake import Lake
from infra.stored_object import StoredObject
from infra.transfer import RECORD
from preprocessing.archive.index import SUFFIX as INDEX
from preprocessing.garbage import References
from preprocessing.origins import IN_LAKE
from preprocessing.sources.idc import WHOLE

BESIDE = (RECORD, INDEX)  # of a file that was pulled
UNREFERENCED = "no kept manifest has a case of it"
SUPERSEDED = "all of it is there in a newer version"


def raw_garbage(lake: Lake, references: References, cutoff: datetime) -> Iterator[Garbage]:
    """The version folders of `raw/` that may go."""
    objects = list(lake.objects("raw"))
    files = _Files(objects)
    used = {source: _Used.by(origins) for source, origins in references.origins.items()}
    for folder, found in gather(objects, _folder_of).items():
        source = folder.split("/")[1]
        names, by = files.names[folder], used.get(source)
        if found.newest >= cutoff or (by and by.has(folder, (name for name in names if files.is_newest(folder, name)))):
            continue
        if not by or source == "phantom" or WHOLE in names:
            yield found.as_garbage("raw", folder, UNREFERENCED)
        elif names and not any(files.is_newest(folder, name) for name in names):
            yield found.as_garbage("raw", folder, SUPERSEDED)


def _folder_of(key: str) -> str:
    """`raw/<source>/<version>`; "" where the object is in none."""
    parts = key.split("/", 3)
    return "/".join(parts[:3]) if len(parts) == 4 else ""


class _Files:
    """The files of every version folder by name, and which folder of a source has the newest of a name."""

    def __init__(self, objects: Iterable[StoredObject]) -> None:
        self.names: dict[str, set[str]] = defaultdict(set)
        self._newest: dict[tuple[str, str], tuple[datetime, str]] = {}
        for one in objects:
            if (folder := _folder_of(one.key)) and not one.key.endswith(BESIDE):
                name = one.key.removeprefix(f"{folder}/")
                self.names[folder].add(name)
                place, at = (folder.split("/")[1], name), (one.modified, folder)
                self._newest[place] = max(self._newest.get(place, at), at)

    def is_newest(self, folder: str, name: str) -> bool:
        return self._newest[folder.split("/")[1], name][1] == folder


@dataclass(frozen=True)
class _Used:
    """What the cases of a source are read from: folders of the lake, series by name, files by the path of their url."""

    folders: frozenset[str]
    series: frozenset[str]
    paths: frozenset[str]

    @classmethod
    def by(cls, origins: Iterable[str]) -> "_Used":
        here = {_folder_of(origin.removeprefix(IN_LAKE)) for origin in origins if origin.startswith(IN_LAKE)}
        paths = {urlsplit(origin).path.strip("/") for origin in origins if "://" in origin}
        return cls(frozenset(here), frozenset(path.rpartition("/")[2] for path in paths), frozenset(paths))

    def has(self, folder: str, names: Iterable[str]) -> bool:
        """Whether a case is read from the folder; `names` are those of its files that are the newest of their name."""
        return (
            folder in self.folders or folder.split("/")[2] in self.series or any(name in self.paths for name in names)
        )
