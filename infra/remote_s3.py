"""Objects of a bucket, signed or anonymous, at any endpoint: ranged reads that all name the version they belong to."""

import errno
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.remote import ChangedError, Remote, Stream, TransferError, TransferPolicy, TransientError, Version
from infra.settings import load_settings

if TYPE_CHECKING:
    from s3fs import S3FileSystem
    from s3fs.core import S3File

PIECE = 8 * 2**20  # bytes in one request
ELSEWHERE = getattr(errno, "EREMCHG", errno.ENOENT)  # what s3fs makes of a redirect to another region


def probe_s3(remote: Remote, policy: TransferPolicy) -> Version:
    """The version from the object's head."""
    with _translated(remote):
        return _version(_client(remote, policy).info(remote.url))


def list_s3(remote: Remote, policy: TransferPolicy) -> list[Remote]:
    """Every object below the prefix that the url is, sorted by key, each with the size that the listing saw."""
    with _translated(remote):
        found = _client(remote, policy).find(remote.url, detail=True)
    return [remote.replace(url=f"s3://{name}", size=found[name]["size"]) for name in sorted(found)]


@contextmanager
def open_s3(remote: Remote, start: int, version: Version | None, policy: TransferPolicy) -> Generator[Stream]:
    """The object from byte `start` of `version` on, or the whole of it where that is another version now."""
    with _translated(remote):
        stream = _client(remote, policy).open(remote.url, "rb", cache_type="none")
    with stream:
        seen = _version(stream.details)
        first = start if version and seen.matches(version) else 0
        stream.seek(first)
        yield Stream(seen, first, _pieces(remote, stream), resumable=True)


def _client(remote: Remote, policy: TransferPolicy) -> "S3FileSystem":
    from s3fs import S3FileSystem

    settings = load_settings()
    limits = {"connect_timeout": policy.connect_timeout_s, "read_timeout": policy.read_timeout_s}
    files = S3FileSystem(  # fsspec keeps one per set of arguments
        anon=remote.anonymous,
        endpoint_url=remote.endpoint or settings.s3_endpoint or None,
        client_kwargs={"region_name": settings.s3_region},
        config_kwargs={**limits, "retries": {"total_max_attempts": 1}},
        use_listings_cache=False,
    )
    files.retries = 1  # the pull tries again, and knows Retry-After
    return files


def _version(details: dict[str, Any]) -> Version:
    modified = details.get("LastModified")
    return Version(
        etag=details.get("ETag") or "", size=details["size"], modified=modified.isoformat() if modified else ""
    )


def _pieces(remote: Remote, stream: "S3File") -> Iterator[bytes]:
    while (wanted := min(PIECE, stream.size - stream.tell())) > 0:
        with _translated(remote, reading=True):
            piece = stream.read(wanted)
        if len(piece) > wanted:
            raise TransferError(f"{remote.name}: the server sends more than the part asked for; use another endpoint")
        if not piece:
            return
        yield piece


@contextmanager
def _translated(remote: Remote, *, reading: bool = False) -> Generator[None]:
    """s3fs's, botocore's and aiohttp's errors as ours; `reading`, a refused precondition or range is a change."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError
    from s3fs.core import S3_RETRYABLE_ERRORS
    from s3fs.utils import FileExpired

    try:
        yield
    except PermissionError as error:
        remedy = remote.access or "give credentials that may read it, or declare it anonymous if it is public"
        raise TransferError(f"{remote.name} answers 403: {remedy}") from error
    except NoCredentialsError as error:
        raise TransferError(
            f"{remote.name} wants credentials: set AWS_ACCESS_KEY_ID or declare it anonymous"
        ) from error
    except FileNotFoundError as error:
        raise TransferError(f"{remote.name} answers 404: it was moved or withdrawn; correct the url") from error
    except FileExpired as error:
        raise ChangedError(f"{remote.name} changed while it was pulled") from error
    except IndexError as error:  # s3fs stumbles over a timeout that has no text
        raise TransientError(f"{remote.name} sends nothing; check the network and run again to resume") from error
    except (OSError, BotoCoreError, *S3_RETRYABLE_ERRORS) as error:
        raise _of_the_server(remote, error, reading) from error


def _of_the_server(remote: Remote, error: Exception, reading: bool) -> TransferError:
    code = getattr(error, "errno", None)
    if code == errno.EINVAL and reading:
        return ChangedError(f"{remote.name} changed while it was pulled")
    if code in (errno.EINVAL, errno.EPERM, ELSEWHERE):
        return TransferError(f"{remote.name} is refused ({error}); check its endpoint and AWS_REGION")
    response = getattr(error.__cause__, "response", None) or {}
    wait = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    reason = str(error) or type(error).__name__
    return TransientError(f"{remote.name}: {reason}; run again later to resume", float(wait) if wait.isdecimal() else 0)
