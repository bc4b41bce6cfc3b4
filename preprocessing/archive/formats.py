"""Which format a file is of, by its first bytes, and what its readers raise when it is damaged."""

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

from isal import isal_zlib
from py7zr.exceptions import ArchiveError, PasswordRequired

from infra.errors import UserError
from preprocessing.archive import seven_zip, tar, zip
from preprocessing.archive.members import Entry, Limits
from preprocessing.archive.output import Output


class Format(NamedTuple):
    """One format: its records, and the writing of members by their places."""

    entries: Callable[[Path, str | None, Limits], Iterator[Entry]]
    unpack: Callable[[Path, Mapping[int, Output], str | None, Limits], None]


TAR = Format(tar.entries, tar.unpack)
ZIP = Format(zip.entries, zip.unpack)
SEVEN = Format(seven_zip.entries, seven_zip.unpack)
FORMATS = {b"PK\x03\x04": ZIP, b"PK\x05\x06": ZIP, b"7z\xbc\xaf\x27\x1c": SEVEN}
REFUSED = {
    b"PK\x07\x08": "the first part of a split zip; join the parts: `zip -s 0 IN.zip --out OUT.zip`",
    b"Rar!": "a RAR archive, which is not read; unpack it and pack it again as zip",
    b"\x28\xb5\x2f\xfd": "packed with Zstandard, which is not read; unpack it with `zstd -d`",
}
PART = re.compile(r"\.(z\d\d|\d{3}|part\d+\.rar)$", re.IGNORECASE)
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError),
    *(MemoryError, RecursionError, RuntimeError, UnboundLocalError, struct.error, zlib.error, lzma.LZMAError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, ArchiveError, PasswordRequired),
    cast(type[Exception], isal_zlib.error),  # its stub takes the class for an instance
)


def find_format(path: Path) -> Format:
    """The format; what begins like nothing known may still be a tar.

    Raises:
        UserError: a format that is not read, one part of a split archive, or no readable file.
    """
    if PART.search(path.name) or path.with_suffix(".z01").exists():
        raise UserError(f"{path.name} is one part of a split archive; join the parts into one file first.")
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise UserError(f"the archive {path} cannot be read: {error}; give the path of the file.") from None
    if tar.is_tar(start):
        return TAR
    if what := next((what for magic, what in REFUSED.items() if start.startswith(magic)), ""):
        raise UserError(f"{path.name} is {what}.")
    return next((kind for magic, kind in FORMATS.items() if start.startswith(magic)), TAR)


def reads_in_place(path: Path, format_: Format) -> bool:
    """Whether one member can be had without reading what lies before it: zip and plain tar."""
    if format_ is not TAR:
        return format_ is ZIP
    with path.open("rb") as stream:
        return tar.is_tar(stream.read(512))


def damaged(what: str, error: BaseException, password: str | None) -> str:
    """The sentence for what a reader raised."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    remedy = "check the password, or fetch it again" if password is not None else "fetch the archive again"
    return f"{what} is damaged, cut short or no archive that can be read ({reason}); {remedy}."
