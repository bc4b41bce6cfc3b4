"""Checksums of bytes that pass by, and the record of them that lies beside a pulled file."""

import hashlib
from collections.abc import Iterable
from typing import BinaryIO, Self

from infra.config import Config

BLOCK = 2**20  # bytes


class Record(Config):
    """What a file was when it was pulled; stored as `<name>.sha256`, canonical JSON."""

    url: str
    etag: str
    size: int
    md5: str
    sha256: str


class Checksums:
    """MD5, SHA-256 and count of the bytes so far."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self.size = 0
        for chunk in chunks:
            self.update(chunk)

    @classmethod
    def of(cls, stream: BinaryIO) -> Self:
        """The checksums of everything that a stream still holds, read block by block."""
        return cls(iter(lambda: stream.read(BLOCK), b""))

    def update(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        self._md5.update(chunk)
        self._sha256.update(chunk)
        self.size += len(chunk)

    def record(self, url: str, etag: str) -> Record:
        """The record of a file that consists of the bytes so far."""
        return Record(url=url, etag=etag, size=self.size, md5=self._md5.hexdigest(), sha256=self._sha256.hexdigest())
