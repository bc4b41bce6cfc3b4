"""Files of this machine, or of a drive that it mounts, with the contract of a server: versions, parts, changes."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from infra.remote import ChangedError, Remote, Stream, TransferError, TransferPolicy, TransientError, Version

PIECE = 2**20  # bytes


def probe_file(remote: Remote, policy: TransferPolicy) -> Version:
    """The version from the file's size, time and inode."""
    try:
        return _version(Path(remote.path).stat())
    except OSError as error:
        raise _translated(remote, error) from error


@contextmanager
def open_file(remote: Remote, start: int, version: Version | None, policy: TransferPolicy) -> Generator[Stream]:
    """The file from byte `start` of `version` on, or the whole of it where that is another version now."""
    with _opened(remote) as stream:
        seen = _version(os.fstat(stream.fileno()))
        first = start if version and seen.matches(version) else 0
        stream.seek(first)
        yield Stream(seen, first, _pieces(remote, stream, seen), resumable=True)


def _opened(remote: Remote) -> BinaryIO:
    try:
        return Path(remote.path).open("rb")
    except OSError as error:
        raise _translated(remote, error) from error


def _version(status: os.stat_result) -> Version:
    return Version(etag=f"{status.st_ino}-{status.st_mtime_ns}", size=status.st_size, modified=str(status.st_mtime_ns))


def _pieces(remote: Remote, stream: BinaryIO, seen: Version) -> Iterator[bytes]:
    try:
        while piece := stream.read(PIECE):
            yield piece
        if _version(os.fstat(stream.fileno())) != seen:
            raise ChangedError(f"{remote.name} changed while it was read")
    except OSError as error:
        raise _translated(remote, error) from error


def _translated(remote: Remote, error: OSError) -> TransferError:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return TransferError(f"{remote.name} cannot be read ({error.strerror}); name a file that is there")
    return TransientError(f"{remote.name} cannot be read ({error.strerror}); check the drive and run again to resume")
