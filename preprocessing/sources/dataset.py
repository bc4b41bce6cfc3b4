"""A public data set: one small file of facts answers how cases are listed, read, and what their labels mean.

`Dataset` is what such a file holds; `PublicSource` makes a source of it, with a user's options. Archives are pulled
whole to `raw/<source>/<version>/` and read in place; files behind urls of their own are pulled when their case is.
"""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr

from infra.config import Config
from infra.errors import UserError
from infra.fetch import Progress
from infra.fingerprint import canonical_json, fingerprint
from infra.lake import Lake, open_lake
from infra.remote import Remote, TransferError
from infra.settings import absolute_url
from infra.transfer import RECORD, probe, pull, pull_many, raw_key
from preprocessing.archive.index import SUFFIX as INDEX
from preprocessing.case import AbsentError, Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.file_layout import FileLayout, cases_by_layout
from preprocessing.sources.files import FileEntry, Files
from preprocessing.sources.holdings import bring, is_archive, listed, read
from preprocessing.sources.on_disk import check, local_copy
from preprocessing.sources.rooms import close_room, open_room, room

Lister = Callable[[Files, FileLayout, str], Iterable[Case]]
Finder = Callable[["PublicSource"], Iterable[tuple[str, FileEntry]]]


@dataclass(frozen=True)
class Dataset:
    """The facts of one public data set.

    Args:
        info: its entry in the catalogue.
        layout: how its files are named.
        files: what to pull whole: archives, tables. Declared checksums are part of the data's version.
        find: lists files that lie behind urls of their own, each pulled when its case is; None where there are none.
        list: names, layout and source to cases, where a layout alone does not say it.
        finish: completes a case whose files are here, where a header or table inside says what they mean; what it
            writes goes to the case's scratch folder, its second argument.
        remote: options of every url that `find` lists (token, where to ask).
        revision: raised whenever the same files would be listed otherwise.
    """

    info: SourceInfo
    layout: FileLayout
    files: tuple[Remote, ...] = ()
    find: Finder | None = None
    list: Lister = cases_by_layout
    finish: Callable[[Case, Path], Case] = lambda case, _: case
    remote: Remote | None = None
    revision: int = 1


class PublicSource(Config):
    """A public data set with the user's options; the facts are looked up by name in the process that needs them."""

    name: str
    archive: tuple[str, ...] = Field((), description="archives or unpacked folders that you bring; read in place")
    mirror: str = Field("", description="a url or folder that has the data set's files under the same names")
    keep_raw: bool = Field(True, description="keep what was pulled; false = drop it once the cases are converted")
    files: tuple[Remote, ...] = Field((), description="other urls and checksums of files, by the same names")
    layout: dict[str, Any] = Field(default_factory=dict, description="fields of the layout that differ in your release")
    licence: str = Field("", description="the terms under which you have it, where they differ")

    _room: str = PrivateAttr("")

    @property
    def dataset(self) -> Dataset:
        """The facts."""
        from preprocessing.sources.registry import dataset

        return dataset(self.name)

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry."""
        info = self.dataset.info
        return info.replace(licence=self.licence) if self.licence else info

    @property
    def path(self) -> str:
        """The folder that holds what the user brought; "" where nothing was."""
        folders = [str(Path(absolute_url(given)).parent) for given in self.archive]
        return os.path.commonpath(folders) if folders else ""

    @cached_property
    def file_layout(self) -> FileLayout:
        """The data set's layout with the user's corrections."""
        return self.dataset.layout.replace(**self.layout) if self.layout else self.dataset.layout

    @cached_property
    def remotes(self) -> dict[str, Remote]:
        """What is pulled whole, by file name: the data set's declaration, the user's instead, at the mirror."""
        own = {file_name(remote): remote for remote in self.files}
        found = {file_name(remote): own.pop(file_name(remote), remote) for remote in self.dataset.files} | own
        if not self.mirror:
            return found
        return {name: remote.replace(url=f"{self.mirror.rstrip('/')}/{name}") for name, remote in found.items()}

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """Every case, sorted by id; an archive that is not in the lake's `raw/` yet is pulled first.

        Raises:
            UserError: the data set must be asked for, cannot be pulled, or holds nothing that it should.
        """
        self._room = self._room or open_room()
        if self.archive:
            return self._listed(self._brought())
        if self.remotes:
            if lake is None:
                raise UserError(f"source {self.name} must be pulled to a lake before its cases can be listed")
            return self._pulled_cases(lake, progress)
        if self.dataset.find is None:
            raise UserError(f"source {self.name} cannot be pulled by a program: {self.info.how}")
        return self._listed({})

    def is_listed(self, lake: Lake | None) -> bool:
        """Whether `cases` would pull no archive."""
        if self.archive or not self.remotes:
            return True
        return lake is not None and lake.exists(self._listing_key)

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with files that can be opened here.

        Raises:
            AbsentError: a file cannot be had now.
            CaseError: a file is damaged.
        """
        try:
            local = {name: self._local(name, lake, scratch) for name in dict.fromkeys(case.origin)}
        except TransferError as error:
            raise AbsentError(str(error)) from error
        here = bring(list(local.values()), scratch, room(self._room or "none"), self._password)
        return self.dataset.finish(case.relocated(lambda name: str(here[local[name]])), scratch)

    def finish(self, lake: Lake) -> None:
        """After an ingest: forget what was unpacked and, without `keep_raw`, the archives themselves."""
        if self._room:
            close_room(self._room)
            self._room = ""
        if self.archive or self.keep_raw:
            return
        for name, version in self.versions.items():
            key = raw_key(self.name, version, name)
            for piece in (key, f"{key}{RECORD}", f"{key}{INDEX}"):
                if lake.exists(piece):
                    lake.delete(piece)

    def _pulled_cases(self, lake: Lake, progress: Progress | None) -> list[Case]:
        key = self._listing_key
        if lake.exists(key):
            return [Case.model_validate(row) for row in json.loads(gzip.decompress(lake.read(key)))]
        entries: dict[str, FileEntry] = {}
        places = {name: raw_key(self.name, version, name) for name, version in self.versions.items()}
        files = [(self.remotes[name], where) for name, where in places.items()]
        for _, result in pull_many(lake, files, progress=progress):
            if isinstance(result, UserError):
                raise result
        for name, where in places.items():
            path, version = local_copy(lake, where), self.versions[name]
            if is_archive(name):
                entries |= listed(where, path, room(self._room), version, self._password)
            else:
                entries[where] = FileEntry(path.stat().st_size, version)
        cases = self._listed(entries, lake)
        rows = canonical_json([case.model_dump(mode="json") for case in cases])
        lake.write(key, gzip.compress(rows.encode(), mtime=0))
        return cases

    def _brought(self) -> dict[str, FileEntry]:
        """The files of the archives and folders that the user brought, checked against what the data set declares."""
        entries: dict[str, FileEntry] = {}
        for given in self.archive:
            path = Path(absolute_url(given))
            if (declared := self.remotes.get(path.name)) and path.is_file():
                check(path, declared)
            entries |= listed(str(path), path, room(self._room), password=self._password)
        return entries

    def _listed(self, entries: Mapping[str, FileEntry], lake: Lake | None = None) -> list[Case]:
        found = dict(entries) | dict(self.dataset.find(self) if self.dataset.find and not self.archive else ())
        files = Files(found, lambda name: read(self._local(name, lake, None), room(self._room), self._password))
        cases = [self._completed(case, files) for case in self.dataset.list(files, self.file_layout, self.name)]
        if not cases:
            raise UserError(
                f"source {self.name}: none of its {len(found)} files is an image of its layout "
                f"({self.file_layout.image}); bring the archive of its host, or correct the layout in sources.toml"
            )
        return sorted(cases, key=lambda case: case.id)

    def _completed(self, case: Case, files: Files) -> Case:
        """A listed case with what is the same for all: terms, a token over its files, what is known to be damaged."""
        found = [files.entries[file] for name in case.origin for file in files.at(name)]
        broken = next((entry.problem for entry in found if entry.problem), "")
        tokens = [self.dataset.revision, self.layout, *(entry.token for entry in found)]
        return case.model_copy(
            update={
                "licence": case.licence if case.licence != "unknown" else self.info.licence,
                "citation": case.citation or self.info.citation,
                "version": fingerprint(tokens),
                "problem": case.problem or broken,
            }
        )

    @cached_property
    def versions(self) -> dict[str, str]:
        """The version of each file that is pulled whole: its declared checksum, else what its server says of it."""
        return {
            name: (remote.sha256 or remote.md5 or probe(remote).fingerprint)[:16]
            for name, remote in self.remotes.items()
        }

    @property
    def _listing_key(self) -> str:
        decides = fingerprint([self.versions, self.dataset.revision, self.layout, self.licence])
        return f"raw/{self.name}/{decides[:16]}/cases.json.gz"

    def _local(self, name: str, lake: Lake | None, scratch: Path | None) -> Path:
        """Where a file, or the archive that it lies in, is on this machine; pulled first where it is not."""
        if "://" in name:
            place = lake if self.keep_raw or scratch is None else open_lake(str(scratch / "pulled"))
            return self._pulled(name, place)
        if os.path.isabs(name):  # noqa: PTH117 - may lead through an archive
            return Path(name)
        if lake is None:
            raise UserError(f"source {self.name} needs a lake to read {name}")
        key = "/".join(name.split("/")[:4])
        if not lake.exists(key):
            pull(lake, self.remotes[key.rpartition("/")[2]], key)
        return local_copy(lake, key) / name.removeprefix(key).lstrip("/")

    def _pulled(self, url: str, lake: Lake | None) -> Path:
        """A file behind its own url; what its listing said of it stands behind `#`."""
        if lake is None:
            raise UserError(f"source {self.name} needs a lake to pull {url} to")
        remote = self._remote(url)
        version = remote.sha256[:16] or probe(remote).fingerprint[:16]
        key = raw_key(self.name, version, urlsplit(remote.url).path.lstrip("/"))
        pull(lake, remote, key)
        return local_copy(lake, key)

    def _remote(self, url: str) -> Remote:
        plain, _, said = url.partition("#")
        checksum = {"sha256": said.removeprefix("sha256=")} if said.startswith("sha256=") else {}
        base = self.dataset.remote.model_dump() if self.dataset.remote else {}
        return Remote.model_validate(base | {"url": plain} | checksum)

    @property
    def _password(self) -> str | None:
        """Of archives that have one: secrets come from the environment alone."""
        return os.environ.get(f"MEDDIFF_{self.name.upper().replace('-', '_')}_PASSWORD")


def file_name(remote: Remote) -> str:
    """The name of the file behind a url."""
    return urlsplit(remote.url).path.rpartition("/")[2]
