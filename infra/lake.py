"""The lake: one folder or bucket that holds everything, addressed by keys with forward slashes.

A write is atomic: a reader sees the whole object or none. `create` is exclusive: of two writers one gets
FileExistsError. Zarr groups of the same lake come from `group` and `store`. A `Lake` is plain data, so it travels to
workers, and every process opens its own connections.
"""

import json
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from infra.byte_range import ByteRange
from infra.errors import UserError
from infra.local_files import LocalFiles
from infra.s3_objects import S3Objects, s3_errors
from infra.settings import URL_SCHEMES, Settings, absolute_url, load_settings
from infra.stored_object import StoredObject

FORMAT = 1
MARKER = "lake.json"
ZarrMode = Literal["r", "r+", "a", "w-"]
WRITES_AT_ONCE = 4


class _CompleteStore(FsspecStore):
    """Arrays with all their chunks: one that is missing is an error, where Zarr would read the fill value."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if value is None and "/c/" in f"/{key}":
            raise FileNotFoundError(f"{key} is missing")
        return value


@dataclass(frozen=True)
class Lake:
    """A folder or bucket; `url` is an absolute path or `s3://bucket/prefix`, `id` is the lake's own."""

    url: str
    id: str = ""
    endpoint: str = ""
    region: str = "us-east-1"

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url, "id": self.id, "endpoint": self.endpoint, "region": self.region}

    @cached_property
    def _files(self) -> LocalFiles | S3Objects:
        if self.url.startswith("s3://"):
            return S3Objects(self.url, self.endpoint, self.region)
        return LocalFiles(Path(self.url))

    @property
    def bucket(self) -> S3Objects | None:
        """The bucket's objects; None where the lake is a folder."""
        return self._files if isinstance(self._files, S3Objects) else None

    def exists(self, key: str) -> bool:
        """Whether an object of this key is there."""
        return self._files.exists(key)

    def read(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            FileNotFoundError: no such object.
        """
        return self._files.read(key)

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of each range, short where the object ends before; FileNotFoundError where there is none."""
        return self._files.read_ranges(ranges) if ranges else []

    def read_tail(self, key: str, size: int) -> bytes:
        """The last `size` bytes of the object, all of it where it is shorter."""
        return self._files.read_tail(key, size)

    def open(self, key: str) -> BinaryIO:
        """The object as a stream; FileNotFoundError where there is none."""
        return self._files.open(key)

    def write(self, key: str, data: bytes) -> None:
        """Put an object, atomically and durably; an older one of the same key is replaced."""
        self._files.write(key, data)

    def write_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Put many (key, bytes) objects in any order, a few at once; no more than those are held in memory."""
        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            waiting: deque[Future[None]] = deque()
            for key, data in objects:
                if len(waiting) == WRITES_AT_ONCE:
                    waiting.popleft().result()
                waiting.append(pool.submit(self.write, key, data))
            for write in waiting:
                write.result()

    def create(self, key: str, data: bytes) -> None:
        """Put an object only where none is.

        Raises:
            FileExistsError: another writer was first.
        """
        self._files.create(key, data)

    def list(self, prefix: str = "") -> list[str]:
        """The keys of all objects under the folder `prefix`, sorted; empty where there is none."""
        return self._files.list(prefix.strip("/"))

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object under the folder `prefix` with its size and time, in no order, by one listing.

        What killed writers left in a folder is among them, unlike in `list`.
        """
        return self._files.objects(prefix.strip("/"))

    def touch(self, key: str) -> None:
        """Set an object's time to now, its bytes as they are.

        Raises:
            FileNotFoundError: no such object.
        """
        self._files.touch(key)

    def delete(self, key: str) -> None:
        """Remove one object; one that is not there is no error."""
        self._files.delete(key)

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove many objects, in no order, and folders of theirs that become empty; a missing one is no error."""
        self._files.delete_all(keys)

    def store(self, key: str, *, read_only: bool = True) -> Store:
        """The Zarr store whose root is `key`; a bucket's read-only one raises FileNotFoundError for a lost chunk."""
        if isinstance(self._files, S3Objects):
            kind = _CompleteStore if read_only else FsspecStore
            return kind(self._files.client_for(sync), path=f"{self._files.root}/{key}", read_only=read_only)
        return LocalStore(self._files.root / key, read_only=read_only)

    def group(self, key: str, mode: ZarrMode = "r") -> zarr.Group:
        """The Zarr group at `key`.

        Raises:
            FileNotFoundError: mode is `r` or `r+` and there is no group.
        """
        return zarr.open_group(self.store(key, read_only=mode == "r"), mode=mode, zarr_format=3)

    def url_of(self, key: str) -> str:
        """Absolute path or s3 url of a key."""
        return f"{self.url.rstrip('/')}/{key}"

    def link(self, key: str) -> str:
        """An address that a browser opens: `file://`, or `https://` signed for a week."""
        return self._files.link(key)

    def local_path(self, key: str) -> Path | None:
        """The key's path where the lake is a folder, None where it is a bucket."""
        return self._files.path(key)


def open_lake(url: str = "", create: bool = True, *, settings: Settings | None = None) -> Lake:
    """The lake at a path, `file://` or `s3://` url; `lake.json` is written where the place is new.

    Raises:
        UserError: the place cannot be reached or written, holds no lake while `create` is off, or a newer format's.
    """
    settings = settings or load_settings()
    url = url or settings.lake_url
    place = absolute_url(url).removeprefix("file://")
    if "://" in url and not url.startswith(URL_SCHEMES):
        raise UserError(f"{url} is no lake url: give a folder, file:///folder or s3://bucket/prefix")
    lake = Lake(place, "", settings.s3_endpoint, settings.s3_region)
    try:
        marker = _read_or_create(lake, create)
    except FileNotFoundError:
        raise UserError(_nothing_there(place, create)) from None
    except storage_errors(place) as error:
        raise UserError(f"the lake at {place} cannot be opened: {error}") from error
    return Lake(place, _checked_id(marker, place), lake.endpoint, lake.region)


def storage_errors(url: str) -> tuple[type[Exception], ...]:
    """What a folder or bucket raises when it cannot be reached, read or written."""
    return s3_errors() if url.startswith("s3://") else (OSError,)


def _nothing_there(place: str, create: bool) -> str:
    if create:
        return f"{place} cannot be made: the bucket or drive does not exist; create it first"
    return f"there is no lake at {place} (no {MARKER}); ingest into it first or name another"


def _read_or_create(lake: Lake, create: bool) -> bytes:
    try:
        return lake.read(MARKER)
    except FileNotFoundError:
        if not create:
            raise
    marker = json.dumps({"format": FORMAT, "id": uuid.uuid4().hex}).encode()
    try:
        lake.create(MARKER, marker)
    except FileExistsError:
        return lake.read(MARKER)
    return marker


def _checked_id(marker: bytes, place: str) -> str:
    try:
        values = json.loads(marker)
        number, id_ = int(values["format"]), str(values["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}/{MARKER} is not a lake's marker ({error}); name another folder") from None
    if number > FORMAT:
        raise UserError(f"{place} is a lake of format {number}; this meddiff reads up to {FORMAT}: install a newer one")
    return id_


def limit_zarr_concurrency(requests: int = 4, threads: int = 1) -> None:
    """Keep one worker process to a few requests and threads of zarr; called in every worker."""
    zarr.config.set({"async.concurrency": requests, "threading.max_workers": threads})
    os.environ.setdefault("BLOSC_NTHREADS", "1")
