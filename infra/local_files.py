"""Files under a root folder: atomic writes by rename, exclusive ones by hard link."""

import itertools
import os
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from infra.byte_range import ByteRange
from infra.stored_object import StoredObject

PARTIAL = ".partial"


class LocalFiles:
    """Objects as files under a root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.root / key

    def link(self, key: str) -> str:
        """The file's address for a browser on this machine."""
        return self.path(key).as_uri()

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        return self.path(key).is_file()

    def read(self, key: str) -> bytes:
        """The file's bytes."""
        return self.path(key).read_bytes()

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of every range, a file opened once for those that follow each other."""
        parts = []
        for key, group in itertools.groupby(ranges, lambda r: r.key):
            descriptor = os.open(self.path(key), os.O_RDONLY)
            try:
                parts += [os.pread(descriptor, r.stop - r.start, r.start) for r in group]
            finally:
                os.close(descriptor)
        return parts

    def read_tail(self, key: str, size: int) -> bytes:
        """The last bytes of the file, all of it where it is shorter."""
        with self.open(key) as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        """The file as a stream."""
        return self.path(key).open("rb")

    def write(self, key: str, data: bytes) -> None:
        """Write a temporary file, flush it to the disk, rename it into place."""
        with _temporary(self.path(key), data) as partial:
            partial.replace(self.path(key))

    def create(self, key: str, data: bytes) -> None:
        """The same with a hard link, which fails where the name exists."""
        with _temporary(self.path(key), data) as partial:
            os.link(partial, self.path(key))

    def list(self, prefix: str) -> list[str]:
        """Sorted keys below a folder, without the leftovers of killed writers."""
        files = (path for path in (self.root / prefix).rglob("*") if path.is_file() and path.suffix != PARTIAL)
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """The files below a folder, leftovers of killed writers too; files that go meanwhile are left out."""
        waiting = [prefix]
        while waiting:
            folder = waiting.pop()
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / folder) as entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(key)
                    elif found := _stored(key, entry):
                        yield found

    def touch(self, key: str) -> None:
        """Set the file's time to now."""
        os.utime(self.path(key))

    def delete(self, key: str) -> None:
        """Remove the file, durably."""
        path = self.path(key)
        with suppress(FileNotFoundError):
            path.unlink()
            fsync_folder(path.parent)

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove the files, then the folders that held nothing else."""
        paths = [self.path(key) for key in keys]
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in _folders_of(paths):
            with suppress(OSError):  # something else is in it
                folder.rmdir()


def _stored(key: str, entry: os.DirEntry[str]) -> StoredObject | None:
    """A file as the lake lists it; None where it went meanwhile, or is none."""
    with suppress(FileNotFoundError):
        if entry.is_file():
            status = entry.stat()
            return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
    return None


def _folders_of(paths: Sequence[Path]) -> list[Path]:
    """The folder that holds all of the files and those between it and them, the deepest first."""
    if not paths:
        return []
    top = Path(os.path.commonpath([path.parent for path in paths]))
    found = {folder for path in paths for folder in path.parents if folder.is_relative_to(top)}
    return sorted(found, key=lambda folder: len(folder.parts), reverse=True)


@contextmanager
def _temporary(path: Path, data: bytes) -> Generator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder as durable as its files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
