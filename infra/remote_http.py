"""Files over HTTP(S): one GET, resumed by Range and If-Range, checked before a byte of it is believed.

An answer that is a page instead of the file, that is compressed on the way, or whose end cannot be told, is refused.
A token goes to the url's own host over TLS, never to where that host redirects.
"""

import logging
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import urlsplit

import httpx

from infra.errors import UserError
from infra.remote import ChangedError, Remote, Stream, TransferError, TransferPolicy, TransientError, Version

PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")


def probe_http(remote: Remote, policy: TransferPolicy) -> Version:
    """The version from a request for the first byte, which also a url signed for GET allows."""
    with _answer(remote, policy, {"Range": "bytes=0-0"}) as answer:
        _refuse_bad_status(remote, answer, also_good=(416,))
        _refuse_page(remote, answer)
        return _version(answer)


@contextmanager
def open_http(remote: Remote, start: int, version: Version | None, policy: TransferPolicy) -> Generator[Stream]:
    """The file from byte `start` of `version` on, or the whole of what it is now where that part is not to be had."""
    asked = _range_headers(start, version) if start and version else {}
    with _answer(remote, policy, asked) as answer:
        if asked and answer.status_code in (412, 416):
            raise ChangedError(f"{remote.name} no longer has the part from byte {start}")
        _refuse_bad_status(remote, answer)
        _refuse_page(remote, answer)
        _refuse_compression(remote, answer)
        seen = _version(answer)
        if answer.status_code == 206:
            _refuse_other_part(remote, answer, start if asked else 0, seen, version if asked else None)
        else:
            start = 0
        _refuse_open_end(remote, answer, seen)
        yield Stream(seen, start, answer.iter_raw(), bool(_validator(seen, answer.headers.get("Date", ""))))


@lru_cache
def _client(policy: TransferPolicy) -> httpx.Client:
    for name in ("httpx", "httpcore"):  # they log urls with signatures, and headers with tokens
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    return httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(policy.read_timeout_s, connect=policy.connect_timeout_s),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=policy.connections),
        headers={"Accept-Encoding": "identity", "User-Agent": "meddiff"},
    )


@contextmanager
def _answer(remote: Remote, policy: TransferPolicy, headers: dict[str, str]) -> Generator[httpx.Response]:
    try:
        with _client(policy).stream("GET", remote.url, headers=headers | _authorization(remote)) as answer:
            yield answer
    except httpx.UnsupportedProtocol as error:
        raise TransferError(f"{remote.name} leads to a url that is not http(s); correct it") from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise TransientError(f"{remote.name}: {reason}; check the network and run again to resume") from error
    except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise TransferError(f"{remote.name} leads nowhere ({type(error).__name__}); correct the url") from error


def _authorization(remote: Remote) -> dict[str, str]:
    if not remote.token_env:
        return {}
    token = os.environ.get(remote.token_env, "").strip()
    if not token:
        hint = f" ({remote.access})" if remote.access else ""
        raise UserError(f"{remote.name} needs a token: set {remote.token_env} in the environment{hint}")
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"the token in {remote.token_env} has characters that no header may hold; copy it again")
    if remote.scheme == "http" and urlsplit(remote.url).hostname not in LOOPBACK:
        raise UserError(f"{remote.name} would show the token of {remote.token_env} to the network; use https")
    return {"Authorization": f"Bearer {token}"}


def _range_headers(start: int, version: Version) -> dict[str, str]:
    return {"Range": f"bytes={start}-", "If-Range": _strong(version.etag) or version.modified}


def _strong(etag: str) -> str:
    return "" if etag.startswith("W/") else etag


def _validator(version: Version, date: str) -> str:
    """What If-Range accepts: a strong ETag, or a date a second or more before the answer's (RFC 9110, 8.8.2.2)."""
    if _strong(version.etag) or not (version.modified and date):
        return _strong(version.etag)
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(version.modified)
    except (ValueError, TypeError):
        return ""
    return version.modified if age.total_seconds() >= 1 else ""


def _version(answer: httpx.Response) -> Version:
    headers = answer.headers
    if answer.status_code in (206, 416):
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        size = found and found[3]
    else:
        size = headers.get("Content-Length", "")
    return Version(
        etag=headers.get("ETag", ""),
        size=int(size) if size and size.isdecimal() else None,
        modified=headers.get("Last-Modified", ""),
    )


def _refuse_bad_status(remote: Remote, answer: httpx.Response, also_good: tuple[int, ...] = ()) -> None:
    status = answer.status_code
    if status in (200, 206, *also_good):
        return
    if status in PASSING:
        wait_s = _retry_after_s(answer.headers.get("Retry-After", ""))
        until = f" and asks to come back in {wait_s:.0f} s" if wait_s else ""
        raise TransientError(f"{remote.name} answers {status}{until}; it is busy or broken, run again later", wait_s)
    raise TransferError(f"{remote.name} answers {status}: {_remedy(remote, status)}")


def _remedy(remote: Remote, status: int) -> str:
    if status in (401, 403):
        token = f"the token in {remote.token_env} is not allowed it" if remote.token_env else "it wants an account"
        return f"{token}; {remote.access or 'ask for access on the page of the dataset'}"
    if status in (404, 410):
        return "it was moved or withdrawn; look for its new url on the page of the dataset"
    return "the server refuses the request; open the url in a browser to see why"


def _retry_after_s(text: str) -> float:
    """Seconds, or the time until an HTTP date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _refuse_page(remote: Remote, answer: httpx.Response) -> None:
    page = answer.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml"))
    if page and not urlsplit(remote.url).path.lower().endswith((".html", ".htm")):
        raise TransferError(
            f"{remote.name} answers with a page of HTML, not with the file; "
            f"{remote.access or 'open it in a browser: it may want a login or an agreement'}"
        )


def _refuse_compression(remote: Remote, answer: httpx.Response) -> None:
    coding = answer.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    if coding != "identity" and not (remote.md5 or remote.sha256):
        raise TransferError(
            f"{remote.name} comes with Content-Encoding {coding} though identity was asked for, so that the file's own "
            "bytes cannot be told; declare its md5 or sha256"
        )


def _refuse_open_end(remote: Remote, answer: httpx.Response, seen: Version) -> None:
    known = seen.size is not None or remote.size is not None or remote.md5 or remote.sha256
    if not known and "chunked" not in answer.headers.get("Transfer-Encoding", "").lower():
        raise TransferError(f"{remote.name} comes without a length, so that its end cannot be told; declare its size")


def _refuse_other_part(
    remote: Remote, answer: httpx.Response, start: int, seen: Version, version: Version | None
) -> None:
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if not found or found[1] is None or int(found[1]) != start:
        raise ChangedError(f"{remote.name} was asked for byte {start} on and sends another part")
    if version and not seen.matches(version):
        raise ChangedError(f"{remote.name} changed while it was pulled")
