"""7z archives through py7zr, which only ever gets writers of ours: it neither names nor makes a file.

Members of a solid block can only be had by unpacking the block from its beginning, so all that are wanted of it come in
one pass. Of the coders those are read that unpack piece by piece (up to 128 MB, as py7zr decides); the others would
put a bomb into memory. Links are not followed, and of two members with one name neither is taken.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from py7zr import SevenZipFile
from py7zr.io import Py7zIO, WriterFactory
from py7zr.properties import COMPRESSION_METHOD as METHOD
from py7zr.py7zr import ArchiveFile

from infra.errors import UserError
from preprocessing.archive.members import Entry, Limits
from preprocessing.archive.output import Output

AES = METHOD.CRYPT_AES256_SHA256
BOUNDED = {
    *(METHOD.COPY, METHOD.LZMA, METHOD.LZMA2, METHOD.MISC_BZIP2, METHOD.DELTA),
    *(METHOD.BCJ, METHOD.P7Z_BCJ, AES),
}


def entries(path: Path, password: str | None, limits: Limits) -> Iterator[Entry]:
    """Every record, in the order of the archive; `place` is its number."""
    with path.open("rb") as stream, SevenZipFile(stream, password=password) as archive:
        files, encrypted = list(archive.files), AES in _methods(archive, path.name)
        times, packed = Counter(file.filename for file in files), _packed(files)
        for place, file in enumerate(files):
            if file.uncompressed < 0:
                raise ValueError(f"{file.filename} has {file.uncompressed} bytes")
            kind = "folder" if file.is_directory else "file"
            problem = _problem(file, times[file.filename])
            yield Entry(
                file.filename, kind, file.uncompressed, packed[place], place, file.crc32, "", problem, encrypted
            )


def unpack(path: Path, outputs: Mapping[int, Output], password: str | None, limits: Limits) -> None:
    """Write the members at these places in one pass over their blocks."""
    with (
        tempfile.TemporaryDirectory() as empty,
        path.open("rb") as stream,
        SevenZipFile(stream, password=password) as archive,
    ):
        names = {archive.files[place].filename for place in outputs}
        archive.extract(empty, names, factory=_Writers(empty, outputs))


def _methods(archive: SevenZipFile, name: str) -> set[bytes]:
    """The ids of the coders that the archive needs; refuses those that are not read."""
    streams = archive.header.main_streams
    folders = streams.unpackinfo.folders if streams else []
    methods = {coder["method"] for folder in folders for coder in folder.coders}
    if strange := sorted(methods - BOUNDED):
        method = strange[0].hex()
        raise UserError(f"{name} is packed with 7z's method {method}, which is not read; pack it again with LZMA2.")
    return methods


def _packed(files: list[ArchiveFile]) -> list[int]:
    """Packed bytes of each file: its share of its block's."""
    blocks: list[list[int]] = []  # packed and unpacked bytes
    block_of = []
    for file in files:
        if file.folder is not None and (file.compressed is not None or not blocks):
            blocks.append([file.compressed or 0, 0])
        block_of.append(len(blocks) - 1)
        if blocks:
            blocks[-1][1] += file.uncompressed
    shares = zip(files, block_of, strict=True)
    return [file.uncompressed * blocks[at][0] // max(blocks[at][1], 1) if at >= 0 else 0 for file, at in shares]


def _problem(file: ArchiveFile, times: int) -> str:
    if times > 1:
        return f"is stored {times} times; of a 7z none is taken then"
    if file.is_symlink or file.is_junction:
        return "is a link, and links in a 7z are not followed"
    return "" if file.is_file or file.is_directory else "is no file (a device or pipe)"


class _Writers(WriterFactory):
    def __init__(self, root: str, outputs: Mapping[int, Output]) -> None:
        self.outputs = {str(Path(root) / output.member.name): output for output in outputs.values()}

    def create(self, filename: str) -> Py7zIO:
        return _Writer(self.outputs[filename])


class _Writer(Py7zIO):
    """py7zr's view of an output; closed only when its member is whole."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def write(self, s: bytes | bytearray) -> int:
        return self.output.write(s)

    def close(self) -> None:
        self.output.finish()

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def flush(self) -> None:
        return None

    def size(self) -> int:
        return self.output.member.size
