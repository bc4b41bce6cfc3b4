"""One member on its way to its file: written under another name, checked, then renamed; so half a file never shows.

The bytes are counted and summed (CRC-32) as they come: more than the archive declared stops the writing at once.
"""

import shutil
import uuid
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from infra.errors import UserError
from infra.local_files import PARTIAL
from preprocessing.archive.members import Member, safe_name
from preprocessing.case import CaseError

PIECE = 2**20  # bytes held at once


class Readable(Protocol):
    """What `pour` reads from."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, none at the end."""
        ...


class Output:
    """The file of one member; `finish` gives it its name, `abandon` leaves nothing behind."""

    def __init__(self, member: Member, folder: Path, archive: str) -> None:
        self.member = member
        self.label = f"{archive}: {member.name}"
        self.path = folder / safe_name(member.name, archive)
        self.partial = self.path.with_name(f".{uuid.uuid4().hex}{PARTIAL}")
        self.finished = False
        self._folder = folder
        self._stream: BinaryIO | None = None
        self._written = 0
        self._crc = 0

    def write(self, data: bytes | bytearray) -> int:
        """Append; returns the number of bytes.

        Raises:
            CaseError: more bytes come than were declared.
            UserError: the disk refuses them.
        """
        self._written += len(data)
        if self._written > self.member.size:
            raise CaseError(f"{self.label} holds more than the {self.member.size} bytes it declares; fetch it again.")
        self._crc = zlib.crc32(data, self._crc)
        with self._disk():
            self._opened().write(data)
        return len(data)

    def finish(self) -> None:
        """Close the file and give it its name.

        Raises:
            CaseError: bytes are missing, or their CRC-32 is not the archive's.
        """
        member = self.member
        if self._written != member.size:
            raise CaseError(f"{self.label} ends after {self._written} of {member.size} bytes; fetch the archive again.")
        if member.crc is not None and self._crc != member.crc:
            found = f"CRC-32 is {self._crc:08x}, not {member.crc:08x}"
            raise CaseError(f"{self.label} is damaged, its {found}; fetch the archive again (or check the password).")
        with self._disk():
            self._opened().close()
            self.partial.replace(self.path)
        self.finished = True

    def abandon(self) -> None:
        """Remove what is there of an unfinished file."""
        if self._stream is not None:
            self._stream.close()
            self.partial.unlink(missing_ok=True)

    def clone(self, first: Path) -> None:
        """Have the bytes of the finished file `first`."""
        with self._disk():
            self._make_folder()
            try:
                shutil.copyfile(first, self.partial)
                self.partial.replace(self.path)
            finally:
                self.partial.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._stream is None:
            self._make_folder()
            self._stream = self.partial.open("xb")
        return self._stream

    def _make_folder(self) -> None:
        if not self.path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise UserError(f"{self.path.parent} is a link out of {self._folder}; extract into a folder without links.")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _disk(self) -> Generator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise CaseError(f"{self.label} is a file where another member is a folder; extract one alone.") from error
        except OSError as error:
            raise UserError(f"{self.label} cannot be written to {self.path}: {error}; free space there.") from error


def pour(stream: Readable, output: Output, piece: int = PIECE) -> None:
    """All bytes of the stream into the output, `piece` at a time; then it is finished."""
    while data := stream.read(piece):
        output.write(data)
    output.finish()
