"""What a lake needs of an S3 server, tried with throw-away objects by the very calls that the lake makes."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from infra.byte_range import ByteRange
from infra.doctor.answer import shown
from infra.doctor.check import Check, Status, told
from infra.errors import UserError
from infra.lake import MARKER, open_lake, storage_errors
from infra.s3_objects import S3Objects
from infra.settings import Settings

PART_BYTES = 5 * 2**20  # the smallest that S3 takes before the last one
HASTY = {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
OTHER_LAKE = "name another with MEDDIFF_LAKE or --lake"
ONE_WRITER = "single writer only: run one ingest at a time, or move the lake to a server that honours If-None-Match"
OTHER_SERVER = "no lake can lie here: take another S3 server, or a newer release of this one"


class _Fault(Exception):  # noqa: N818 - it is a finding
    """A request went through, and what it promised did not happen."""


class _Need(NamedTuple):
    """One thing that the lake does; what it means where the server ignores it, and where it refuses."""

    what: str
    try_it: Callable[[S3Objects, str], str]
    ignored: Status
    refused: Status
    remedy: str


def look_at_bucket(settings: Settings, prefix: str) -> Iterator[Check]:
    """The bucket's lake and every need of a lake; all that is written lies below `prefix` and is deleted again."""
    url, errors = settings.lake_url, storage_errors(settings.lake_url)
    objects = S3Objects(url, settings.s3_endpoint, settings.s3_region, HASTY)
    objects.files.retries = 1
    try:
        with suppress(FileNotFoundError):  # a silent server is given up here; a put would wait for its `100 Continue`
            objects.read(MARKER)
        objects.write(f"{prefix}/first", b"first")
    except errors as error:
        yield Check(what="lake", status="missing", found=f"{url}: {told(error)}", remedy=_remedy(settings, error))
        return
    with _swept(objects, prefix, errors):
        yield _opened(settings)
        for need in NEEDS:
            yield _tried(need, objects, prefix, errors)


def _tried(need: _Need, objects: S3Objects, prefix: str, errors: tuple[type[Exception], ...]) -> Check:
    what = f"lake: {need.what}"
    try:
        return Check(what=what, status="ok", found=need.try_it(objects, prefix))
    except _Fault as fault:
        return Check(what=what, status=need.ignored, found=told(fault), remedy=need.remedy)
    except errors as error:
        remedy = OTHER_SERVER if need.refused == "missing" else need.remedy
        return Check(what=what, status=need.refused, found=f"refused: {told(error)}", remedy=remedy)


def _opened(settings: Settings) -> Check:
    url, at = settings.lake_url, f" at {shown(settings.s3_endpoint)}" if settings.s3_endpoint else ""
    try:
        lake = open_lake(url, create=False, settings=settings)
    except UserError as error:
        if "there is no lake" in str(error):
            return Check(what="lake", status="ok", found=f"{url}{at}: none yet, made by the first ingest")
        return Check(what="lake", status="missing", found=told(error), remedy=OTHER_LAKE)
    return Check(what="lake", status="ok", found=f"{url}{at} (id {lake.id})")


def _remedy(settings: Settings, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"make the bucket {settings.lake_url.split('/')[2]} first"
    if isinstance(error, PermissionError) or "credentials" in str(error):
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user that may put, get, list and delete there"
    place = shown(settings.s3_endpoint) if settings.s3_endpoint else f"AWS in {settings.s3_region}"
    return f"see that {place} can be reached; AWS_ENDPOINT_URL and AWS_REGION name another"


def _replaced(objects: S3Objects, prefix: str) -> str:
    key = f"{prefix}/first"
    objects.write(key, b"second")
    if (found := objects.read(key)) != b"second":
        raise _Fault(f"an object that was replaced is read as it was before ({found[:20]!r})")
    return "what was written last is read"


def _listed(objects: S3Objects, prefix: str) -> str:
    if f"{prefix}/first" not in objects.list(prefix):
        raise _Fault("an object that was just written is not listed")
    return "what was written is listed at once"


def _ranges(objects: S3Objects, prefix: str) -> str:
    key = f"{prefix}/range"
    objects.write(key, bytes(range(100)))
    if (middle := objects.read_ranges([ByteRange(key, 3, 7)])) != [bytes(range(3, 7))]:
        raise _Fault(f"Range: bytes=3-6 of 100 gives {len(middle[0])} bytes")
    if (tail := objects.read_tail(key, 4)) != bytes(range(96, 100)):
        raise _Fault(f"Range: bytes=-4 of 100 gives {len(tail)} bytes")
    return "the middle and the last bytes of an object are read alone"


def _created_once(objects: S3Objects, prefix: str) -> str:
    key = f"{prefix}/once"
    objects.create(key, b"first")
    with suppress(FileExistsError):
        objects.create(key, b"second")
    if objects.read(key) != b"first":
        raise _Fault("If-None-Match is ignored: a second writer replaces what the first one created")
    return "If-None-Match keeps the first of two writers"


def _large(objects: S3Objects, prefix: str) -> str:
    key, data = f"{prefix}/large", bytes(PART_BYTES) + b"second part"
    _upload(objects, key, data)
    if objects.read(key) != data:
        raise _Fault("an object of two parts is not read as it was sent")
    return "an object was put together from two parts"


def _large_once(objects: S3Objects, prefix: str) -> str:
    key = f"{prefix}/large-once"
    _upload(objects, key, b"first")
    with suppress(FileExistsError):
        _upload(objects, key, b"second")
    if objects.read(key) != b"first":
        raise _Fault("If-None-Match is ignored when parts are put together")
    return "If-None-Match keeps the first of two writers of a large object"


def _upload(objects: S3Objects, key: str, data: bytes) -> None:
    upload = objects.open_upload(key, PART_BYTES)
    try:
        upload.write(data)
        objects.finish_upload(key, upload)
    except BaseException:
        with suppress(OSError):
            upload.discard()
        upload.closed = True  # or it would be flushed when it is collected
        raise


def _deleted(objects: S3Objects, prefix: str) -> str:
    key = f"{prefix}/first"
    objects.delete(key)
    if objects.exists(key):
        raise _Fault("an object that was deleted is still there")
    return "what was deleted is gone"


NEEDS = (
    _Need("replacing", _replaced, "missing", "missing", f"{OTHER_SERVER}; or take away the cache before it"),
    _Need("listing", _listed, "warning", "missing", "single writer only: run one ingest at a time"),
    _Need("Range requests", _ranges, "missing", "missing", OTHER_SERVER),
    _Need("exclusive creation", _created_once, "warning", "missing", ONE_WRITER),
    _Need("multipart upload", _large, "missing", "missing", OTHER_SERVER),
    _Need("exclusive large objects", _large_once, "warning", "missing", ONE_WRITER),
    _Need("deleting", _deleted, "warning", "warning", "allow s3:DeleteObject, or what is not needed stays for good"),
)


@contextmanager
def _swept(objects: S3Objects, prefix: str, errors: tuple[type[Exception], ...]) -> Generator[None]:
    """Deletes what the probes wrote, by name, for a listing may be late."""
    try:
        yield
    finally:
        for name in ("first", "range", "once", "large", "large-once"):
            with suppress(*errors):
                objects.delete(f"{prefix}/{name}")
