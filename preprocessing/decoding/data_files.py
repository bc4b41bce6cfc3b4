"""Which files an image is made of: a header may name another one that holds its voxels.

What decides whether an image has changed, and what reads it, must mean the same files: both ask here. A header is not
trusted: it may name a file beside it or below, never one elsewhere on the machine. Voxels spread over several files
(a LIST, a pattern of names) are refused.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nibabel.nifti1 import Nifti1Pair

from preprocessing.case import CaseError
from preprocessing.decoding.text_headers import HEADER_BYTES, METAIMAGE, NRRD, head_of, nrrd_fields

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
    plain: bool = False  # nothing but the voxels follows, as they lie in memory


def data_file(path: Path) -> DataFile:
    """Where a NRRD or MetaImage header says its voxels are.

    Raises:
        CaseError: the header does not say, contradicts itself, or names several files, one elsewhere or a missing one.
    """
    head = head_of(path)
    return _of_nrrd(path, head) if path.suffix.lower() in NRRD else _of_metaimage(path, head)


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside an image file that hold its voxels: none where they lie in the file itself.

    Raises:
        CaseError: as `data_file`.
    """
    suffix = path.suffix.lower()
    if suffix in NRRD + METAIMAGE:
        data = data_file(path).path
    elif suffix in (".hdr", ".img"):
        data = _beside(path, Path(str(Nifti1Pair.filespec_to_file_map(str(path))["image"].filename)).name)
    else:
        return ()
    return () if data == path else (data,)


def with_data_files(paths: Iterable[str]) -> tuple[str, ...]:
    """The given files, each followed by those its header names; a file that is not there or no header stands alone."""
    out: list[str] = []
    for path in paths:
        out.append(path)
        try:
            out.extend(str(data) for data in data_files(Path(path)))
        except (CaseError, OSError):
            continue
    return tuple(out)


def _beside(path: Path, other: str) -> Path:
    """A file that a header names, in the header's folder or below."""
    if "%" in other or other.upper().startswith("LIST"):
        raise CaseError(f"{path.name}: its voxels lie in several files ({other[:40]!r}); save it as one file.")
    if PurePosixPath(other).is_absolute() or ".." in PurePosixPath(other).parts:
        raise CaseError(f"{path.name}: its header names {other[-80:]!r}, outside its folder; put both into one folder.")
    found = path.parent / other
    if not os.path.isfile(found):  # noqa: PTH113 - False as well for a name that no file can have
        raise CaseError(f"{path.name}: its voxels should lie in {found.name!r}, which is not there; copy it as well.")
    return found


def _of_nrrd(path: Path, head: bytes) -> DataFile:
    fields, end = nrrd_fields(head)
    if end is None and len(head) == HEADER_BYTES:
        raise CaseError(f"{path.name}: its header does not end; it is damaged, copy or export it again.")
    other, packed = fields.get("datafile", ""), NRRD_CODES.get(fields.get("encoding", "").lower(), "")
    skips = [fields.get(key) or "0" for key in ("lineskip", "byteskip")]
    if packed and not (skips[0] == "0" and re.fullmatch(r"-1|\d{1,12}", skips[1])):
        shown = " and ".join(repr(skip[:20]) for skip in skips)
        raise CaseError(f"{path.name}: its packed voxels lie behind {shown} lines and bytes; save it without a skip.")
    start = 0 if other else len(head) if end is None else end
    plain = skips == ["0", "0"] and fields.get("encoding", "").lower() == "raw"
    big = fields.get("endian", "little").lower() == "big"
    where = _beside(path, other) if other else path
    return DataFile(where, start, packed, big, max(int(skips[1]), 0) if packed else 0, plain)


def _of_metaimage(path: Path, head: bytes) -> DataFile:
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)\r?\n?", head, re.MULTILINE)
    if last is None:
        raise CaseError(f"{path.name}: its header names no ElementDataFile; it is damaged, copy or export it again.")
    other = last.group(1).decode("latin-1").strip()
    text = head[: last.start()].decode("latin-1")
    packed = "zlib" if _flag(text, "CompressedData", path) else ""
    big = _flag(text, "BinaryDataByteOrderMSB", path) or _flag(text, "ElementByteOrderMSB", path)
    plain = not packed and _flag(text, "BinaryData", path) and "HeaderSize" not in text
    if other.upper() == "LOCAL":
        return DataFile(path, last.end(), packed, big, plain=plain)
    return DataFile(_beside(path, other), 0, packed, big, plain=plain)


def _flag(text: str, key: str, path: Path) -> bool:
    """A yes or no of a MetaImage header; False where it is not given."""
    stated = {value.strip() for value in re.findall(rf"^[ \t]*{key}[ \t]*=([^\r\n]*)", text, re.MULTILINE)}
    if len(stated) > 1 or not {value.lower() for value in stated} <= set(YES_NO):
        shown = " and ".join(sorted(stated))
        raise CaseError(
            f"{path.name}: its header states {key} = {shown[:40]!r}; it is damaged, copy or export it again."
        )
    return YES_NO[stated.pop().lower()] if stated else False
