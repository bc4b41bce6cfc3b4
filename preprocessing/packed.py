"""The voxels of compressed NRRD and MetaImage files, unpacked here because ITK does not check what it unpacks.

ITK compares no checksum of a gzip stream, returns memory as it finds it where a zlib stream is damaged, and knows no
bzip2. So ITK says where the voxels lie in the patient and of which type they are, and this module gives them.
"""

import bz2
import re
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import DTypeLike, NDArray

from preprocessing.case import CaseError

HEADER_BYTES = 1 << 16
PIECE = 1 << 22
UNPACK_ERRORS = (OSError, EOFError, ValueError, zlib.error)
UNPACK_ERRORS += (cast(type[Exception], isal_zlib.error),)  # its stub takes the class for an instance
NRRD_CODES = {"gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
YES_NO = {"true": True, "false": False}


@dataclass(frozen=True)
class DataFile:
    """Where the voxels are: the file, the place of their first byte, how they are packed ("" = not), their order."""

    path: Path
    start: int
    packed: str
    big_endian: bool
    skip: int = 0  # unpacked bytes in front of the voxels


def data_file(path: Path) -> DataFile | None:
    """Where a NRRD or MetaImage header says its voxels are; None where they lie in several files.

    Raises:
        CaseError: the header does not say, contradicts itself, or names a file that is not there.
    """
    with path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
    found = _of_nrrd(path, head) if path.suffix.lower() in (".nrrd", ".nhdr") else _of_metaimage(path, head)
    if found is not None and not found.path.is_file():
        raise CaseError(
            f"{path.name}: its voxels should lie in {found.path.name}, which is not there; copy it as well."
        )
    return found


def read_packed(data: DataFile, shape: tuple[int, ...], dtype: DTypeLike, name: str) -> NDArray:
    """The voxels of a packed file in this machine's byte order; its checksum is compared.

    Raises:
        CaseError: the stream is damaged, or holds fewer voxels than its header promises.
    """
    stored = np.dtype(dtype).newbyteorder(">" if data.big_endian else "<")
    out = np.empty(shape, stored)
    target = out.data.cast("B")
    try:
        with _unpacked(data) as stream:
            if len(stream.read(data.skip)) < data.skip or _fill(target, stream) < len(target):
                raise EOFError("it ends before its last voxel")
            while stream.read(PIECE):
                pass
    except UNPACK_ERRORS as error:
        raise CaseError(f"{name}: its voxels are damaged or cut short ({error}); copy or export it again.") from error
    return out.astype(stored.newbyteorder("="), copy=False)


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
            if not packed:
                raise EOFError("its zlib stream is cut short")
            out = self._inflate.decompress(packed, size)
            self._waiting = self._inflate.unconsumed_tail
            if out:
                return out
        return b""


def _of_nrrd(path: Path, head: bytes) -> DataFile | None:
    end = re.search(rb"\r?\n\r?\n", head)
    lines = head[: end.start() if end else len(head)].decode("latin-1").splitlines()
    fields = {}
    for line in lines[1:]:
        key, mark, value = line.partition(":")
        if mark and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(key.strip().lower().replace(" ", ""), value.strip())
    other, packed = fields.get("datafile", ""), NRRD_CODES.get(fields.get("encoding", "").lower(), "")
    several = other.upper().startswith("LIST") or "%" in other
    skips = int(fields.get("lineskip") or 0), int(fields.get("byteskip") or 0)
    if packed and (several or skips[0]):
        raise CaseError(f"{path.name}: its packed voxels lie in several files or behind text; save it as one file.")
    if several:
        return None
    start = 0 if other else (end.end() if end else len(head))
    big = fields.get("endian", "little").lower() == "big"
    return DataFile(path.parent / other if other else path, start, packed, big, max(skips[1], 0) if packed else 0)


def _of_metaimage(path: Path, head: bytes) -> DataFile | None:
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*)\r?\n?", head, re.MULTILINE)
    if last is None:
        raise CaseError(f"{path.name}: its header names no ElementDataFile; it is damaged, copy or export it again.")
    other = last.group(1).decode("latin-1").strip()
    text = head[: last.start()].decode("latin-1")
    packed = _flag(text, "CompressedData", path)
    big = _flag(text, "BinaryDataByteOrderMSB", path) or _flag(text, "ElementByteOrderMSB", path)
    if other.upper().startswith("LIST") or "%" in other:
        if packed:
            raise CaseError(f"{path.name}: its packed voxels lie in several files; save it as one file.")
        return None
    local = other.upper() == "LOCAL"
    return DataFile(path if local else path.parent / other, last.end() if local else 0, "zlib" if packed else "", big)


def _flag(text: str, key: str, path: Path) -> bool:
    """A yes or no of a MetaImage header; False where it is not given."""
    stated = {value.strip() for value in re.findall(rf"^[ \t]*{key}[ \t]*=([^\r\n]*)", text, re.MULTILINE)}
    if len(stated) > 1 or not {value.lower() for value in stated} <= set(YES_NO):
        shown = " and ".join(sorted(stated))
        raise CaseError(f"{path.name}: its header states {key} = {shown[:40]}; it is damaged, copy or export it again.")
    return YES_NO[stated.pop().lower()] if stated else False
