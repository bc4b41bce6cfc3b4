"""Holdings: archives and folders that hold a data set's files on this machine, listed and read in place.

A plain tar and a zip give one member alone. What can only be read from its beginning (a packed tar, a 7z) is unpacked
once an ingest into a folder of its own, `room`, which every function here is given.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from infra.errors import UserError
from infra.file_lock import locked
from infra.fingerprint import fingerprint
from preprocessing.archive import Archive, open_archive
from preprocessing.archive.members import Limits, Member
from preprocessing.case import CaseError
from preprocessing.sources.files import FileEntry

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z")
TRUSTING = Limits(total_bytes=2**50)  # a whole data set at once; the free space is still checked


def is_archive(name: str) -> bool:
    """Whether a file is named like an archive."""
    return name.lower().endswith(ENDINGS)


def listed(
    where: str, path: Path, room: Path, token: str = "", password: str | None = None
) -> Iterator[tuple[str, FileEntry]]:
    """Every file at a path by its name below `where`: an archive's members, a folder's files; archives in them opened.

    A member's token is its CRC-32 where the archive keeps one, else `token`, else the archive's size and time.

    Raises:
        UserError: the path is not there, or an archive cannot be listed.
    """
    if path.is_dir():
        for file in _walk(path):
            name = f"{where}/{file.relative_to(path).as_posix()}"
            if is_archive(file.name):
                yield from listed(name, file, room, password=password)
            else:
                yield name, FileEntry(file.stat().st_size, _stamp(file))
        return
    archive = _open(path, password)
    for member in archive.members:
        if is_archive(member.name) and not member.problem:
            inner = _nested(archive, member.name, room, password)
            for one in inner.members:
                yield f"{where}/{member.name}/{one.name}", _entry(one, token or _stamp(path))
        else:
            yield f"{where}/{member.name}", _entry(member, token or _stamp(path))


def read(path: Path, room: Path, password: str | None = None) -> bytes:
    """The bytes of a small file whose path may lead through an archive.

    Raises:
        CaseError: it cannot be read.
    """
    holder, inner = _holder(path)
    if not inner:
        return path.read_bytes()
    archive, member = _innermost(holder, inner, room, password)
    return archive.read(member)


def bring(paths: Sequence[Path], scratch: Path, room: Path, password: str | None = None) -> dict[Path, Path]:
    """Where these files can be opened: in place, or extracted below `scratch`; their paths may lead through archives.

    A path may also be a folder of files (a DICOM series), on disk or in an archive.

    Raises:
        CaseError: one of them is not there or damaged.
    """
    out: dict[Path, Path] = {path: path for path in paths if path.is_dir()}
    members: dict[Path, list[tuple[Path, str]]] = {}
    for path in dict.fromkeys(paths):
        if path in out:
            continue
        holder, inner = _holder(path)
        if inner:
            members.setdefault(holder, []).append((path, inner))
        else:
            out[path] = path
    for number, (holder, wanted) in enumerate(members.items()):
        out |= _extracted(holder, wanted, scratch / f"{number}", room, password)
    return out


def _extracted(
    holder: Path, wanted: list[tuple[Path, str]], folder: Path, room: Path, password: str | None
) -> dict[Path, Path]:
    grouped: dict[Path, tuple[Archive, list[tuple[Path, str]]]] = {}
    for path, inner in wanted:
        archive, member = _innermost(holder, inner, room, password)
        grouped.setdefault(archive.path, (archive, []))[1].append((path, member))
    out = {}
    for archive, members in grouped.values():
        if archive.in_place:
            whole = folder / archive.path.name
            archive.extract(_with_files_of_folders(archive, [member for _, member in members]), whole)
        else:
            whole = _unpacked(archive, room)
        for path, member in members:
            if not (whole / member).exists():
                raise CaseError(f"{archive.path.name} has no member {member!r} that can be read; fetch it again.")
            out[path] = whole / member
    return out


def _with_files_of_folders(archive: Archive, wanted: list[str]) -> list[str]:
    """The members of these names; in place of a folder the members below it."""
    names = {member.name for member in archive.members}
    folders = tuple(f"{name}/" for name in wanted if name not in names)
    below = [name for name in names if name.startswith(folders)] if folders else []
    return [name for name in wanted if name in names or not below] + sorted(below)


def _innermost(holder: Path, inner: str, room: Path, password: str | None) -> tuple[Archive, str]:
    """The archive that holds a member, which may be an archive in the archive, and the member's name in it."""
    archive = _open(holder, password)
    parts = inner.split("/")
    for count in range(1, len(parts)):
        if is_archive(parts[count - 1]):
            return _nested(archive, "/".join(parts[:count]), room, password), "/".join(parts[count:])
    return archive, inner


def _nested(archive: Archive, name: str, room: Path, password: str | None) -> Archive:
    folder = _corner(archive.path, room)
    with locked(folder.with_suffix(".lock")):
        return archive.nested(name, folder, password)


def _unpacked(archive: Archive, room: Path) -> Path:
    """The folder with every readable member of an archive, unpacked once by whoever comes first."""
    folder = _corner(archive.path, room)
    with locked(folder.with_suffix(".lock")):
        if not (folder / "members").is_dir():
            partial = folder / "partial"
            shutil.rmtree(partial, ignore_errors=True)
            names = [member.name for member in archive.members if not member.problem]
            archive.extract(names, partial)
            partial.rename(folder / "members")
    return folder / "members"


def _corner(path: Path, room: Path) -> Path:
    """The folder of the room for one archive."""
    folder = room / fingerprint([str(path), _stamp(path)])[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(path: Path, password: str | None) -> Archive:
    return _opened(path, _stamp(path), password)


@lru_cache(maxsize=16)
def _opened(path: Path, stamp: str, password: str | None) -> Archive:
    return open_archive(path, password, TRUSTING)


def _holder(path: Path) -> tuple[Path, str]:
    """The file or folder on disk that a path leads through, and the rest of the path, which is empty for a plain file.

    Raises:
        CaseError: nothing is there.
    """
    parts = path.parts
    for count in range(len(parts), 1, -1):
        place = Path(*parts[:count])
        if place.is_file():
            return place, "/".join(parts[count:])
        if place.is_dir():
            break
    raise CaseError(f"{path} is not there any more; list the source again.")


def _entry(member: Member, token: str) -> FileEntry:
    own = f"{member.crc:08x}" if member.crc is not None else token
    return FileEntry(member.size, f"{own}-{member.size}", member.problem)


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of the archive or folder") from None
    return f"{status.st_size}-{status.st_mtime_ns}"
