"""Extensions between a NIfTI header and its voxels: nibabel takes memory for all that they promise to hold."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isal import igzip

from preprocessing.case import CaseError

VOX_OFFSET = {348: (108, "f"), 540: (168, "q")}  # size of a NIfTI-1 or NIfTI-2 header: place and form of that field
MOST_BYTES = 1 << 28  # of one extension


def check_extensions(path: Path) -> None:
    """Refuses a header (.nii, .nii.gz, .hdr) that promises a longer extension than its file can hold.

    Raises:
        CaseError: it does.
        OSError, EOFError: the file cannot be read or unpacked.
    """
    suffix = path.suffix.lower()
    with igzip.open(path) if suffix == ".gz" else path.open("rb") as stream:
        size, order = _header_size(head := stream.read(544))
        if len(head) < size + 4 or not size or not head[size]:
            return
        place, form = VOX_OFFSET[size]
        (offset,) = struct.unpack_from(order + form, head, place)
        room = MOST_BYTES if suffix == ".gz" else min(path.stat().st_size, MOST_BYTES)
        stream.seek(size + 4)
        for length in _lengths(stream, order, suffix == ".hdr", offset):
            if length > room:
                raise CaseError(
                    f"{path.name}: its header promises an extension of {length} bytes, the file holds fewer; it is "
                    "damaged, copy or export it again."
                )


def _header_size(head: bytes) -> tuple[int, str]:
    """Of a NIfTI header, with its byte order; 0 for anything else."""
    for order in "<>":
        if len(head) >= 4 and (size := struct.unpack_from(f"{order}i", head)[0]) in VOX_OFFSET:
            return size, order
    return 0, "<"


def _lengths(stream: Any, order: str, alone: bool, offset: float) -> Iterator[int]:
    """The lengths that extensions state, one after the other: to the voxels, or to the end of a header file."""
    while alone or stream.tell() + 16 <= offset:
        lead = stream.read(8)
        if len(lead) < 8:
            return
        (length,) = struct.unpack_from(f"{order}i", lead)
        yield length
        if length < 8:
            return
        stream.seek(length - 8, 1)
