"""Where a pull's bytes gather until they are whole: a locked partial file of a folder, or a bucket's multipart upload.

A killed pull leaves `<name>.partial`, and beside it `<name>.version.partial` which says of what it is a part; the next
pull goes on from there. The kernel's lock on the partial file ends with its process, so there is no stale one. A killed
upload leaves parts that no reader sees and that the bucket's lifecycle rule removes.
"""

import os
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pydantic import ValidationError

from infra.checksums import Checksums
from infra.config import Config
from infra.errors import UserError
from infra.file_lock import try_lock
from infra.lake import Lake
from infra.local_files import PARTIAL, fsync_folder
from infra.remote import Version
from infra.s3_objects import S3Objects

if TYPE_CHECKING:
    from s3fs.core import S3File

LOCK_POLL_S = 0.2
PART = 16 * 2**20  # bytes of a part of an upload, held in memory
MOST_PARTS = 9_000  # of the 10,000 that S3 allows


class Partial(Protocol):
    """The first `checksums.size` bytes of `version` (none = nothing yet) of a file that no reader sees.

    Only what is `resumable` may be continued by another connection.
    """

    version: Version | None
    checksums: Checksums
    resumable: bool

    def restart(self, version: Version | None, *, url: str = "", resumable: bool = False) -> None:
        """Forget what is there; what comes is of `version`."""

    def make_room(self, size: int) -> None:
        """Refuse a file of `size` bytes in all that does not fit."""

    def append(self, chunk: bytes) -> None:
        """Add the next bytes."""

    def publish(self) -> None:
        """Make it the whole file; FileExistsError where another one is."""


class _Origin(Config):
    """The content of `<name>.version.partial`."""

    url: str
    version: Version


class _PartialFile:
    def __init__(self, path: Path, stream: BinaryIO, url: str) -> None:
        self.version: Version | None = None
        self.checksums = Checksums()
        self.resumable = False
        self._path, self._stream = path, stream
        self._partial, self._origin = _partial_paths(path)
        with suppress(FileNotFoundError, ValidationError):
            origin = _Origin.model_validate_json(self._origin.read_bytes())
            if origin.url == url:
                self.version, self.resumable = origin.version, True
                with self._partial.open("rb") as held:
                    self.checksums = Checksums.of(held)

    def restart(self, version: Version | None, *, url: str = "", resumable: bool = False) -> None:
        self._origin.unlink(missing_ok=True)  # first, or old bytes would pass for the new version's
        self._stream.truncate(0)
        os.fsync(self._stream.fileno())
        self.version, self.checksums, self.resumable = version, Checksums(), resumable
        if version and resumable:
            self._origin.write_text(_Origin(url=url, version=version).model_dump_json())

    def make_room(self, size: int) -> None:
        missing, free = size - self.checksums.size, shutil.disk_usage(self._path.parent).free
        if missing > free:
            raise UserError(
                f"{self._path} needs {missing:,} bytes and {free:,} are free; make room or name another lake"
            )

    def append(self, chunk: bytes) -> None:
        self._stream.write(chunk)
        self.checksums.update(chunk)

    def publish(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        os.link(self._partial, self._path)
        fsync_folder(self._path.parent)
        self.forget()

    def forget(self) -> None:
        """Remove the partial file; called under its lock."""
        self._partial.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)


class _Upload:
    def __init__(self, bucket: S3Objects, key: str) -> None:
        self.version: Version | None = None
        self.checksums = Checksums()
        self.resumable = False
        self._bucket, self._key = bucket, key
        self._file: S3File | None = None

    def restart(self, version: Version | None, *, url: str = "", resumable: bool = False) -> None:
        self.abandon()
        self.version, self.checksums, self.resumable = version, Checksums(), resumable

    def make_room(self, size: int) -> None:
        self._opened(size)

    def append(self, chunk: bytes) -> None:
        self._opened().write(chunk)
        self.checksums.update(chunk)

    def publish(self) -> None:
        self._bucket.finish_upload(self._key, self._opened())
        self._file = None

    def _opened(self, size: int = 0) -> "S3File":
        if self._file is None:
            self._file = self._bucket.open_upload(self._key, max(PART, -(-size // MOST_PARTS)))
        return self._file

    def abandon(self) -> None:
        """Tell the bucket to forget the parts it has."""
        if self._file is not None:
            with suppress(OSError):
                self._file.discard()
            self._file.closed = True  # or it would be flushed when it is collected
            self._file = None


def open_partial(lake: Lake, key: str, url: str, sleep: Callable[[float], object]) -> AbstractContextManager[Partial]:
    """The partial of `key`, for this puller alone in a folder; what there is of another url is not taken over."""
    return _open_upload(lake.bucket, key) if lake.bucket else _open_file(Path(lake.url_of(key)), url, sleep)


@contextmanager
def _open_file(path: Path, url: str, sleep: Callable[[float], object]) -> Generator[_PartialFile]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_partial_paths(path)[0], sleep) as stream:
        partial = _PartialFile(path, stream, url)
        try:
            yield partial
        finally:
            if path.exists() or not (partial.resumable and partial.checksums.size):
                partial.forget()


@contextmanager
def _open_upload(bucket: S3Objects, key: str) -> Generator[_Upload]:
    upload = _Upload(bucket, key)
    try:
        yield upload
    finally:
        upload.abandon()


@contextmanager
def _locked(path: Path, sleep: Callable[[float], object]) -> Generator[BinaryIO]:
    """The file opened for appending and locked; waits for whoever has it."""
    while True:
        with path.open("ab") as stream:
            if try_lock(stream) and _is_at(stream, path):
                yield stream
                return
        sleep(LOCK_POLL_S)


def _is_at(stream: BinaryIO, path: Path) -> bool:
    """Whether the path still names the opened file; the one who had the lock may have published it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _partial_paths(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + PARTIAL), path.with_name(f"{path.name}.version{PARTIAL}")
