"""Fetch: one remote file into one partial, whatever the network does in between.

A connection that breaks is continued where it broke, a remote that changed is begun anew, bytes that are not the
declared ones are pulled once more from the start; what is left then is an error that names the file.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from infra.checksums import Record
from infra.meter import current_meter
from infra.partial import Partial
from infra.remote import (
    ChangedError,
    Remote,
    Stream,
    TransferError,
    TransferPolicy,
    TransientError,
    Version,
    WrongBytesError,
)
from infra.remote_file import open_file, probe_file
from infra.remote_http import open_http, probe_http
from infra.remote_s3 import list_s3, open_s3, probe_s3

_log = logging.getLogger(__name__)
_PROBES = {"http": probe_http, "https": probe_http, "s3": probe_s3, "file": probe_file}
_OPENERS: dict[str, Callable[[Remote, int, Version | None, TransferPolicy], AbstractContextManager[Stream]]] = {
    "http": open_http,
    "https": open_http,
    "s3": open_s3,
    "file": open_file,
}

Progress = Callable[[str, int, int | None], None]
"""Called with a key, its bytes so far and its bytes in all (None = not known), from the thread that pulls it."""


class Stopped(Exception):  # noqa: N818
    """No error: the caller wants no more."""


class Watch:
    """Reports the progress of one pull, counts what travels, and ends it when its caller stopped."""

    def __init__(self, key: str = "", progress: Progress | None = None, stopped: threading.Event | None = None) -> None:
        self.received = 0
        self._key, self._progress = key, progress
        self._stopped = stopped or threading.Event()
        self._meter = current_meter()

    def saw(self, count: int, done: int, total: int | None) -> None:
        """Another `count` bytes travelled; `done` of `total` are there."""
        self.received += count
        self._meter.add(count)
        self.sleep(0)
        if self._progress:
            self._progress(self._key, done, total)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the caller stops."""
        if self._stopped.wait(seconds) if seconds else self._stopped.is_set():
            raise Stopped


def fetch_version(remote: Remote, policy: TransferPolicy) -> Version:
    """The version that is there now; TransferError where the server keeps silent or refuses."""
    return _retrying(policy, Watch())(_PROBES[remote.scheme], remote, policy)


def fetch_listing(remote: Remote, policy: TransferPolicy) -> list[Remote]:
    """The objects below an s3 url; TransferError where the server keeps silent or refuses."""
    return _retrying(policy, Watch())(list_s3, remote, policy)


def fetch(remote: Remote, partial: Partial, policy: TransferPolicy, watch: Watch) -> None:
    """Bring the partial to its end, with one clean repetition where the bytes are not the declared ones."""
    try:
        _fetch_once(remote, partial, policy, watch)
    except WrongBytesError as error:
        _log.warning("%s; pulled once more from the start", error)
        partial.restart(None)
        try:
            _fetch_once(remote, partial, policy, watch)
        except WrongBytesError:
            partial.restart(None)
            raise


def _fetch_once(remote: Remote, partial: Partial, policy: TransferPolicy, watch: Watch) -> None:
    furthest = partial.checksums.size

    def advance() -> bool:
        """Whether the end is reached; a connection that brought new bytes does not count as a failed attempt."""
        nonlocal furthest
        try:
            _read_on(remote, partial, policy, watch)
        except TransientError as error:
            if isinstance(error, ChangedError) or not partial.resumable:
                partial.restart(None)
            if partial.checksums.size <= furthest:
                raise
            furthest = partial.checksums.size
            return False
        return True

    while not _retrying(policy, watch)(advance):
        watch.sleep(policy.first_wait_s)
    refuse_wrong_sums(remote, partial.checksums.record(remote.name, ""))


def _read_on(remote: Remote, partial: Partial, policy: TransferPolicy, watch: Watch) -> None:
    """One connection: from where the partial ends to the end of the file, or a TransientError."""
    if partial.version and partial.checksums.size == partial.version.size:
        return
    with _OPENERS[remote.scheme](remote, partial.checksums.size, partial.version, policy) as stream:
        _refuse_undeclared(remote, stream.version)
        if not stream.start:
            partial.restart(stream.version, url=remote.name, resumable=stream.resumable)
        total = stream.version.size if stream.version.size is not None else remote.size
        partial.make_room(total or 0)
        for chunk in stream.chunks:
            partial.append(chunk)
            if total is not None and partial.checksums.size > total:
                raise WrongBytesError(f"{remote.name} sends more than the {total} bytes it has; it is damaged")
            watch.saw(len(chunk), partial.checksums.size, total)
    if total is not None and partial.checksums.size < total:
        raise TransientError(
            f"{remote.name} ended after {partial.checksums.size} of {total} bytes; run again to resume"
        )


def _refuse_undeclared(remote: Remote, seen: Version) -> None:
    if remote.version and not seen.matches(remote.version):
        raise TransferError(f"{remote.name} changed since it was listed; list the source again")
    if seen.size == 0 and remote.size != 0:
        raise TransferError(f"{remote.name} is empty; look for its new url on the page of the dataset")
    if None not in (seen.size, remote.size) and seen.size != remote.size:
        raise WrongBytesError(
            f"{remote.name} has {seen.size} bytes, {remote.size} are declared: it changed or is not the file; "
            "correct the declaration"
        )


def refuse_wrong_sums(remote: Remote, found: Record) -> None:
    """WrongBytesError where a checksum or the size is not the declared one."""
    for name in ("sha256", "md5", "size"):
        declared, arrived = getattr(remote, name), getattr(found, name)
        if declared not in ("", None) and declared != arrived:
            raise WrongBytesError(
                f"{remote.name} has {name} {arrived}, declared is {declared}: it changed or was damaged on the way; "
                "compare with the page of the dataset"
            )


def _retrying(policy: TransferPolicy, watch: Watch) -> Retrying:
    backoff = wait_random_exponential(policy.first_wait_s, policy.longest_wait_s)

    def asked_s(state: RetryCallState) -> float:
        return getattr(_error(state), "retry_after_s", 0.0)

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=lambda state: state.attempt_number >= policy.attempts or asked_s(state) > policy.longest_retry_after_s,
        wait=lambda state: asked_s(state) + backoff(state),
        sleep=watch.sleep,
        before_sleep=lambda state: _log.info("%s", _error(state)),
        reraise=True,
    )


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
