"""Tar archives, plain or packed with gzip, bzip2 or xz.

Plain tar is read by offset: one member costs one seek. A packed tar can only be read from its beginning: to list it
unpacks the whole (hence the index), and to extract reads up to the last member that is wanted, once for all of them.

tarfile ends quietly at a damaged header, so the block where it ended must be the mark of the end; it also believes
negative sizes and header records of any length, so both are refused here.
"""

import bz2
import io
import lzma
import tarfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from isal import igzip

from preprocessing.archive.members import Entry, Kind, Limits
from preprocessing.archive.output import PIECE, Output, pour

LONGEST_HEADER = 2**16  # bytes; a pax record holds a path and a few attributes
PACKINGS = {b"\x1f\x8b": igzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class Tape(io.BufferedIOBase):
    """The unpacked bytes of a tar, which refuses to read more at once than `longest` and to expand absurdly.

    `last` is what was read last. A packed tape only goes forward.
    """

    def __init__(self, raw: BinaryIO, limits: Limits) -> None:
        self.raw_file = raw
        self.limits = limits
        self.longest = LONGEST_HEADER
        self.last = b""
        start = raw.read(tarfile.BLOCKSIZE)
        raw.seek(0)
        packings = {} if is_tar(start) else PACKINGS
        packing = next((kind for magic, kind in packings.items() if start.startswith(magic)), None)
        self.packed = packing is not None
        self._stream: BinaryIO = cast(BinaryIO, packing(raw)) if packing else raw

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes.

        Raises:
            tarfile.ReadError: `size` is larger than a header can be, or the bytes are too many for the file.
        """
        if size is None or not 0 <= size <= self.longest:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self.last = self._stream.read(size)
        if self.packed and (reason := self.limits.absurd(self._stream.tell(), self.raw_file.tell())):
            raise tarfile.ReadError(reason)
        return self.last

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to an offset; on a packed tape by reading."""
        if not self.packed:
            return self._stream.seek(offset, whence)
        missing = offset - self._stream.tell()
        if missing < 0:
            raise tarfile.ReadError("a header points back")
        longest, self.longest = self.longest, PIECE
        while missing > 0 and (data := self.read(min(missing, PIECE))):
            missing -= len(data)
        self.longest = longest
        return self._stream.tell()

    def tell(self) -> int:
        """The offset in the unpacked bytes."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """Forward at least."""
        return True


def entries(path: Path, password: str | None, limits: Limits) -> Iterator[Entry]:
    """Every record, in the order of the archive; `place` is the offset of its header."""
    with _tape(path, limits) as tape:
        for info, _ in _records(tape):
            sizes = info.size, _packed(info)
            yield Entry(_text(info.name), _kind(info), *sizes, info.offset, None, _text(info.linkname), _odd(info))


def unpack(path: Path, outputs: Mapping[int, Output], password: str | None, limits: Limits) -> None:
    """Write the members at these places, in the order of the archive."""
    left = len(outputs)
    with _tape(path, limits) as tape:
        for info, tar in _records(tape) if tape.packed else _at(tape, sorted(outputs)):
            if (output := outputs.get(info.offset)) is None:
                continue
            stream = tar.extractfile(info)
            if stream is None:
                raise tarfile.ReadError(f"no file at offset {info.offset}")
            tape.longest = PIECE
            pour(stream, output)
            tape.longest = LONGEST_HEADER
            left -= 1
            if not left:
                return


def is_tar(start: bytes) -> bool:
    """Whether the first 512 bytes of a file are a header of a plain tar (all but the oldest ones say so)."""
    return start[257:262] == b"ustar"


@contextmanager
def _tape(path: Path, limits: Limits) -> Generator[Tape]:
    with path.open("rb") as raw:
        yield Tape(raw, limits)


def _records(tape: Tape) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Every record and the archive it can be read from, one after the other; none is kept."""
    tar, previous = _open(tape), -1
    while (info := tar.next()) is not None:
        if info.size < 0 or info.offset <= previous:
            raise tarfile.ReadError(f"the header at offset {info.offset} points back")
        previous = info.offset
        yield info, tar
        cast(Any, tar).members = []
    if tape.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end mark at offset {tar.offset}")


def _at(tape: Tape, places: list[int]) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The records at these offsets."""
    for place in places:
        tape.seek(place)
        tar = _open(tape)
        if (info := tar.next()) is None or info.size < 0:
            raise tarfile.ReadError(f"no header at offset {place}")
        yield info, tar


def _open(tape: Tape) -> tarfile.TarFile:
    return tarfile.open(fileobj=tape, mode="r:", encoding="utf-8", errors="surrogateescape")


def _packed(info: tarfile.TarInfo) -> int:
    """Bytes in the archive: fewer than the size where the file is sparse."""
    pieces = cast(list[tuple[int, int]] | None, info.sparse)
    return info.size if pieces is None else sum(count for _, count in pieces)


def _kind(info: tarfile.TarInfo) -> Kind:
    if info.isdir():
        return "folder"
    return "symlink" if info.issym() else "hardlink" if info.islnk() else "file"


def _odd(info: tarfile.TarInfo) -> str:
    special = not (info.isreg() or info.isdir() or info.issym() or info.islnk())
    return f"is no file but of tar's type {info.type.decode('latin-1')!r} (a device or pipe)" if special else ""


def _text(name: str) -> str:
    """The name; bytes that are no UTF-8 are taken for code page 437, as in zip."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")
