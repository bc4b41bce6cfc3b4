"""The lake: that it opens, that objects can really be written, created once and deleted, and that there is room."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infra.doctor.bucket import look_at_bucket
from infra.doctor.check import Check, told
from infra.doctor.machine import existing, look_at_space
from infra.errors import UserError
from infra.lake import MARKER, open_lake
from infra.local_files import LocalFiles
from infra.settings import Settings

PROBES = "probe"  # the folder of a lake that holds what the doctor writes, for as long as it looks


def look_at_lake(settings: Settings) -> Iterator[Check]:
    """A folder or bucket that can be read and written; one that is not there yet is ok where it could be made."""
    if settings.lake_url.startswith("s3://"):
        yield from look_at_bucket(settings, f"{PROBES}/{uuid.uuid4().hex}")
        return
    root = Path(settings.lake_url.removeprefix("file://"))
    yield _opened(root, settings)
    yield _written(root)
    yield look_at_space("lake: space", root)


def _opened(root: Path, settings: Settings) -> Check:
    try:
        if not (root / MARKER).exists():
            return Check(what="lake", status="ok", found=f"{root}: none yet, made by the first ingest")
        lake = open_lake(settings.lake_url, create=False, settings=settings)
    except (UserError, OSError) as error:
        remedy = "name another with MEDDIFF_LAKE or --lake, or see who owns it"
        return Check(what="lake", status="missing", found=told(error), remedy=remedy)
    return Check(what="lake", status="ok", found=f"{lake.url} (id {lake.id})")


def _written(root: Path) -> Check:
    what, place = "lake: writing", existing(root)
    try:
        if place == root and (root / MARKER).exists():
            found = _exercised(LocalFiles(root), f"{PROBES}/{uuid.uuid4().hex}")
            with suppress(OSError):  # another doctor is at work in it
                (root / PROBES).rmdir()
        else:
            with tempfile.TemporaryDirectory(dir=place, prefix=".meddiff-probe-") as folder:
                found = _exercised(LocalFiles(Path(folder)), "probe")
    except OSError as error:
        remedy = f"let this user write in {place}, or name another lake with MEDDIFF_LAKE or --lake"
        return Check(what=what, status="missing", found=f"cannot be written: {told(error)}", remedy=remedy)
    if found:
        remedy = "put the lake on a file system with hard links (ext4, xfs, NFS), not FAT or a mounted bucket"
        return Check(what=what, status="missing", found=found, remedy=remedy)
    return Check(what=what, status="ok", found="an object was written, created only once, and deleted")


def _exercised(files: LocalFiles, key: str) -> str:
    """What one object cannot do in this folder; "" where all went well.

    Raises:
        OSError: not even writing.
    """
    try:
        files.write(key, b"first")
        files.write(key, b"second")
        if files.read(key) != b"second":
            return "an object that was replaced is read as it was before"
        files.delete(key)
        try:
            files.create(key, b"first")
        except OSError as error:
            return f"no object can be created exclusively, by a hard link: {told(error)}"
        try:
            files.create(key, b"second")
        except FileExistsError:
            return ""
        return "two writers can create the same object"
    finally:
        files.delete(key)
