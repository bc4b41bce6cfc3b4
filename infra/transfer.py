"""Transfer: remote files into the lake's `raw/`, whole, checked, once.

A pull resumes what another left, starts anew when the remote changed, tries again what passes and says what does not.
A file of `raw/` is whole, has its checksums beside it in `<name>.sha256`, and is never overwritten.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from infra.checksums import Checksums, Record
from infra.errors import UserError
from infra.fetch import Progress, Watch, fetch, fetch_listing, fetch_version, refuse_wrong_sums
from infra.fingerprint import canonical_json
from infra.lake import Lake, storage_errors
from infra.local_files import PARTIAL
from infra.partial import Partial, open_partial
from infra.remote import Remote, TransferError, TransferPolicy, Version, WrongBytesError

RECORD = ".sha256"
TAKEN_ENDINGS = (RECORD, PARTIAL, ".version")  # of records and partial files
DEFAULT_POLICY = TransferPolicy()


@dataclass(frozen=True)
class Pulled:
    """A file of the lake: its key, its path where the lake is a folder, its record, the bytes that travelled."""

    key: str
    path: Path | None
    record: Record
    received: int


def raw_key(source: str, version: str | Version, name: str) -> str:
    """`raw/<source>/<version>/<name>`; a Version counts by its fingerprint."""
    folder = version if isinstance(version, str) else version.fingerprint[:16]
    return _checked_key(f"raw/{source}/{folder}/{name}")


def probe(remote: Remote, *, policy: TransferPolicy = DEFAULT_POLICY) -> Version:
    """The version that is there now, for one small request.

    Raises:
        TransferError: the server refuses, or does not answer after the policy's attempts.
    """
    return fetch_version(remote, policy)


def below(remote: Remote, *, policy: TransferPolicy = DEFAULT_POLICY) -> list[Remote]:
    """Every object below an s3 url that ends in a slash, sorted, declared like it and with its size.

    Raises:
        TransferError: nothing is there, the server refuses, or does not answer after the policy's attempts.
    """
    if remote.scheme != "s3" or not remote.url.endswith("/"):
        raise TransferError(f"{remote.name} is no s3 url that ends in a slash: nothing can be listed below it")
    found = fetch_listing(remote, policy)
    if not found:
        raise TransferError(f"{remote.name} holds no object: it was moved or withdrawn; list the source again")
    return found


def pull(
    lake: Lake,
    remote: Remote,
    key: str,
    *,
    policy: TransferPolicy = DEFAULT_POLICY,
    progress: Progress | None = None,
) -> Pulled:
    """The remote file at a key below `raw/`; nothing travels where it is already.

    Raises:
        TransferError: it cannot be had, what arrives is not what is declared, or the key holds other bytes.
        UserError: there is no room, the lake cannot be written, the token is not set, the key is not below `raw/`.
    """
    return _pull(lake, remote, _checked_key(key), policy, Watch(key, progress))


def pull_many(
    lake: Lake,
    files: Iterable[tuple[Remote, str]],
    *,
    policy: TransferPolicy = DEFAULT_POLICY,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Pulled | UserError]]:
    """(key, result or error) for every (remote, key), in order of completion, within the policy's connections.

    A reader that stops early stops the pulls; what they had is resumed by the next ones.
    """
    stopped = threading.Event()
    hosts: dict[str, deque[tuple[Remote, str]]] = {}
    for remote, key in files:
        hosts.setdefault(remote.host, deque()).append((remote, _checked_key(key)))
    with ThreadPoolExecutor(policy.connections, thread_name_prefix="pull") as pool:

        def start(remote: Remote, key: str) -> Future[Pulled]:
            return pool.submit(_pull, lake, remote, key, policy, Watch(key, progress, stopped))

        try:
            for key, future in _within_bounds(hosts, start, policy):
                yield key, _outcome(future)
        finally:
            stopped.set()


def _pull(lake: Lake, remote: Remote, key: str, policy: TransferPolicy, watch: Watch) -> Pulled:
    with _lake_errors(lake, key):
        if not lake.exists(key):
            with open_partial(lake, key, remote.name, watch.sleep) as partial:
                if not lake.exists(key):
                    fetch(remote, partial, policy, watch)
                    _publish(lake, key, partial, remote)
        return Pulled(key, lake.local_path(key), _checked_record(lake, remote, key), watch.received)


def _publish(lake: Lake, key: str, partial: Partial, remote: Remote) -> None:
    record = partial.checksums.record(remote.name, partial.version.etag if partial.version else "")
    try:
        partial.publish()
    except FileExistsError:
        return  # by another puller of the bucket, which also records it
    _write_record(lake, key, record)


def _read_record(lake: Lake, key: str) -> Record:
    name = f"{key}{RECORD}"
    try:
        return Record.model_validate_json(lake.read(name))
    except ValidationError as error:
        raise UserError(f"{lake.url_of(name)} is no record of checksums; delete it and run again") from error


def _write_record(lake: Lake, key: str, record: Record) -> Record:
    try:
        lake.create(f"{key}{RECORD}", canonical_json(record.model_dump(mode="json")).encode())
    except FileExistsError:
        return _read_record(lake, key)
    return record


def _checked_record(lake: Lake, remote: Remote, key: str) -> Record:
    """The record of a file that is there, made anew from its bytes where a killed pull did not come to it."""
    try:
        record = _read_record(lake, key)
    except FileNotFoundError:
        with lake.open(key) as stream:
            record = _write_record(lake, key, Checksums.of(stream).record(remote.name, ""))
    path = lake.local_path(key)
    if path and path.stat().st_size != record.size:
        raise TransferError(
            f"{path} no longer has its {record.size} bytes; delete it and {path.name}{RECORD}, run again"
        )
    try:
        refuse_wrong_sums(remote, record)
    except WrongBytesError as error:
        raise TransferError(
            f"{lake.url_of(key)} holds another file ({error}); pull the new one under a new version: "
            "what is in raw/ is never overwritten"
        ) from error
    return record


def _within_bounds(
    hosts: dict[str, deque[tuple[Remote, str]]], start: Callable[[Remote, str], Future[Pulled]], policy: TransferPolicy
) -> Iterator[tuple[str, Future[Pulled]]]:
    """Every file's key and finished future; never more in flight, in all and per host, than the policy says."""
    running: dict[Future[Pulled], tuple[str, str]] = {}
    busy: Counter[str] = Counter()
    while running or any(hosts.values()):
        for host, queue in hosts.items():
            while queue and busy[host] < policy.connections_per_host and len(running) < policy.connections:
                remote, key = queue.popleft()
                running[start(remote, key)] = (host, key)
                busy[host] += 1
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            host, key = running.pop(future)
            busy[host] -= 1
            yield key, future


def _outcome(future: Future[Pulled]) -> Pulled | UserError:
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, UserError):
        raise error
    return error


@contextmanager
def _lake_errors(lake: Lake, key: str) -> Generator[None]:
    try:
        yield
    except storage_errors(lake.url) as error:
        raise UserError(f"{lake.url_of(key)} cannot be written: {error}; mend the lake and run again") from error


def _checked_key(key: str) -> str:
    parts = PurePosixPath(key).parts
    if parts[:1] != ("raw",) or len(parts) < 4 or ".." in parts or key != "/".join(parts):
        raise UserError(f"{key!r} is no key of a raw file: it is raw/<source>/<version>/<name>, without `..`")
    if key.endswith(TAKEN_ENDINGS):
        raise UserError(
            f"{key!r} ends like what lies beside a raw file ({', '.join(TAKEN_ENDINGS)}); name it otherwise"
        )
    return key
