"""The voxels of compressed NRRD and MetaImage files, unpacked here because ITK does not check what it unpacks.

ITK compares no checksum of a gzip stream, returns memory as it finds it where a zlib stream is damaged, and knows no
bzip2. So ITK says where the voxels lie in the patient and of which type they are, and this module gives them.
"""

import bz2
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import DTypeLike, NDArray

from preprocessing.case import CaseError
from preprocessing.decoding.data_files import DataFile

PIECE = 1 << 22
UNPACK_ERRORS = (OSError, EOFError, ValueError, zlib.error)
UNPACK_ERRORS += (cast(type[Exception], isal_zlib.error),)  # its stub takes the class for an instance


def read_packed(data: DataFile, shape: tuple[int, ...], dtype: DTypeLike, name: str) -> NDArray:
    """The voxels of a packed file in this machine's byte order; its checksum is compared.

    Raises:
        CaseError: the stream is damaged, or holds fewer or more voxels than its header promises.
    """
    stored = np.dtype(dtype).newbyteorder(">" if data.big_endian else "<")
    out = np.empty(shape, stored)
    target = out.data.cast("B")
    try:
        with _unpacked(data) as stream:
            if not _skipped(stream, data.skip) or _fill(target, stream) < len(target):
                raise EOFError("it ends before its last voxel")
            more = stream.read(1)  # and so to the checksum
    except UNPACK_ERRORS as error:
        raise CaseError(f"{name}: its voxels are damaged or cut short ({error}); copy or export it again.") from error
    if more:
        raise CaseError(f"{name}: more bytes than its header promises follow its voxels; export it again.")
    return out.astype(stored.newbyteorder("="), copy=False)


def _skipped(stream: Any, count: int) -> bool:
    """Whether so many bytes could be read past, none of them kept."""
    while count and (piece := stream.read(min(PIECE, count))):
        count -= len(piece)
    return not count


def _fill(target: memoryview, stream: Any) -> int:
    filled = 0
    while piece := stream.read(min(PIECE, len(target) - filled)):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
    return filled


@contextmanager
def _unpacked(data: DataFile) -> Generator[Any]:
    with data.path.open("rb") as stream:
        stream.seek(data.start)
        if data.packed == "bzip2":
            yield bz2.BZ2File(stream)
        elif data.packed == "gzip":
            yield igzip.IGzipFile(fileobj=stream, mode="rb")
        else:
            yield _Inflated(stream)


class _Inflated:
    """A zlib stream as a readable file; it must end where its checksum says."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._inflate = isal_zlib.decompressobj()
        self._waiting = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only at the end of a whole stream."""
        while size and not self._inflate.eof:
            packed = self._waiting or self._stream.read(PIECE)
            out = self._inflate.decompress(packed, size)  # which may still hold some where no input is left
            self._waiting = self._inflate.unconsumed_tail
            if out:
                return out
            if not packed and not self._inflate.eof:
                raise EOFError("its zlib stream is cut short")
        return b""
