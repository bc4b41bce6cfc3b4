"""Zip archives: members are read where they lie; store, deflate, bzip2 and lzma, zip64, and the old password scheme.

The old scheme (ZipCrypto) is decrypted in plain Python, about a megabyte a second. WinZip's AES and split archives are
refused. Members that share bytes are refused as well: that is how a small archive claims to hold petabytes.
"""

import bz2
import copy
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from infra.errors import UserError
from preprocessing.archive.members import Entry, Kind, Limits
from preprocessing.archive.output import PIECE, Output, pour

ENCRYPTED, UTF8 = 0x1, 0x800  # flag bits
AES = 99
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL_HEADER = 30  # bytes before the name
LZMA_PIECE = 4096  # zipfile unpacks all the lzma it reads, up to 7000 to 1, and reads as much as it is asked for
LONGEST_TARGET = 4096


def entries(path: Path, password: str | None, limits: Limits) -> Iterator[Entry]:
    """Every record of the central directory; `place` is the offset of its local header."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check(infos, archive.start_dir, path.name)
        for info in infos:
            kind, problem = _kind(info)
            target = _target(archive, info, password) if kind == "symlink" else ""
            sizes = info.file_size, info.compress_size
            encrypted = bool(info.flag_bits & ENCRYPTED)
            yield Entry(_name(info), kind, *sizes, info.header_offset, info.CRC, target, problem, encrypted)


def unpack(path: Path, outputs: Mapping[int, Output], password: str | None, limits: Limits) -> None:
    """Write the members at these places, in the order of the archive."""
    with zipfile.ZipFile(path) as archive:
        infos = {info.header_offset: info for info in archive.infolist()}
        for place in sorted(outputs):
            info = infos[place]
            with _open(archive, info, password) as stream:
                pour(stream, outputs[place], LZMA_PIECE if info.compress_type == zipfile.ZIP_LZMA else PIECE)


def _check(infos: list[zipfile.ZipInfo], end: int, archive: str) -> None:
    """Refuses members of other disks or methods, and those that overlap each other or the directory at `end`."""
    for info in infos:
        if info.volume:
            raise UserError(f"{archive} is one part of a split zip; join them: `zip -s 0 IN.zip --out OUT.zip`.")
        method = info.compress_type
        if method not in METHODS:
            how = "encrypted with AES" if method == AES else f"packed with zip's method {method}"
            raise UserError(f"{archive} is {how}, which is not read; unpack it with 7-Zip and pack it again.")
        if method == zipfile.ZIP_BZIP2 and info.flag_bits & ENCRYPTED:
            raise UserError(f"{archive} is bzip2 under a password, which is not read; pack it again without.")
    order = sorted(infos, key=lambda info: info.header_offset)
    for info, follower in zip(order, [*order[1:], None], strict=True):
        name = info.orig_filename  # in code page 437 a letter is a byte
        length = len(name.encode() if info.flag_bits & UTF8 else name)
        last = info.header_offset + LOCAL_HEADER + length + info.compress_size
        if last > (follower.header_offset if follower else end):
            other = f"member {follower.filename!r}" if follower else "the directory"
            raise UserError(f"{archive}: member {info.filename!r} overlaps {other}, as in a zip bomb; fetch it again.")


def _kind(info: zipfile.ZipInfo) -> tuple[Kind, str]:
    """What the record is, and why it cannot be had."""
    mode = info.external_attr >> 16
    if info.orig_filename.endswith("/") or stat.S_ISDIR(mode):
        return "folder", ""
    if stat.S_ISLNK(mode):
        return "symlink", ""
    special = stat.S_IFMT(mode) not in (0, stat.S_IFREG)
    return "file", f"is no file but of mode {mode:o} (a device or pipe)" if special else ""


def _target(archive: zipfile.ZipFile, info: zipfile.ZipInfo, password: str | None) -> str:
    if info.file_size > LONGEST_TARGET or (info.flag_bits & ENCRYPTED and password is None):
        return ""
    with _open(archive, info, password) as stream:
        return stream.read(LONGEST_TARGET).decode("utf-8", "replace")


def _name(info: zipfile.ZipInfo) -> str:
    """The stored name: UTF-8 if flagged, or if the bytes are UTF-8 all the same (macOS sets no flag), else cp437."""
    if info.flag_bits & UTF8 or info.orig_filename.isascii():
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return info.orig_filename


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo, password: str | None) -> IO[bytes]:
    if info.compress_type == zipfile.ZIP_BZIP2:
        return _bzip2(archive, info)
    try:
        return archive.open(info, pwd=None if password is None else password.encode())
    except RuntimeError as error:
        raise UserError(f"{archive.filename}: {error}; the dataset's page tells the password.") from error


def _bzip2(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """The unpacked bytes, in pieces; zipfile, which would unpack them whole, hands out the packed ones as if stored."""
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # the unpacked bytes' own, which the output compares
    return cast(IO[bytes], bz2.open(archive.open(packed)))
