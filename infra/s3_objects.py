"""Objects of a bucket through s3fs: whole or not at all, exclusive ones by If-None-Match."""

import atexit
import bisect
import errno
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from infra.byte_range import ByteRange
from infra.stored_object import StoredObject

if TYPE_CHECKING:
    from s3fs import S3FileSystem
    from s3fs.core import S3File

CONNECTION = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}}
SIGNED_SECONDS = 7 * 24 * 3600  # the longest that S3 signs for
Run = Callable[[Coroutine[Any, Any, Any]], Any]
GAP_BYTES = 2**18  # between two parts of an object that is fetched with them: cheaper than a request of its own
PAGE = 1000  # objects that one request lists or deletes
TAKEN = (errno.EEXIST, errno.EINVAL)  # moto and AWS answer the first, Swift the second


class S3Objects:
    """Objects under `s3://bucket/prefix`; credentials come from the environment."""

    def __init__(self, url: str, endpoint: str, region: str, connection: Mapping[str, Any] = CONNECTION) -> None:
        self.root = url.removeprefix("s3://").rstrip("/")
        self.options: dict[str, Any] = {
            "endpoint_url": endpoint or None,
            "client_kwargs": {"region_name": region},
            "config_kwargs": dict(connection),
            "use_listings_cache": False,
        }

    @cached_property
    def files(self) -> "S3FileSystem":
        """The blocking client of this process."""
        return self._client()

    def client_for(self, run: Run) -> "S3FileSystem":
        """A client whose coroutines `run` runs, closed when the process ends."""
        return _closed_at_exit(self._client(asynchronous=True), run)

    def _client(self, **options: Any) -> "S3FileSystem":
        """A client, one per set of options; s3fs is imported only where a bucket is used (half a second)."""
        from s3fs import S3FileSystem

        return S3FileSystem(**self.options, **options)

    def path(self, key: str) -> Path | None:
        """A bucket has no local path."""
        return None

    def link(self, key: str) -> str:
        """An address signed for a week."""
        return self.files.sign(f"{self.root}/{key}", expiration=SIGNED_SECONDS)

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        return self.files.isfile(f"{self.root}/{key}")

    def read(self, key: str) -> bytes:
        """The object's bytes."""
        return self.files.cat_file(f"{self.root}/{key}")

    def read_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """The bytes of every range; near ones of one object by one request, several requests at once."""
        from fsspec.utils import merge_offset_ranges

        wanted = [ByteRange(f"{self.root}/{r.key}", r.start, r.stop) for r in ranges]
        merged = [*map(list, zip(*wanted, strict=True))]
        paths, starts, stops = merge_offset_ranges(*merged, max_gap=GAP_BYTES)
        blocks = self.files.cat_ranges(paths, starts, stops, on_error="raise")
        begins = list(zip(paths, starts, strict=True))
        parts = []
        for path, start, stop in wanted:
            i = bisect.bisect_right(begins, (path, start)) - 1
            parts.append(blocks[i][start - starts[i] : stop - starts[i]])
        return parts

    def read_tail(self, key: str, size: int) -> bytes:
        """The last bytes of the object, all of it where it is shorter."""
        return self.files.cat_file(f"{self.root}/{key}", start=-size)

    def write(self, key: str, data: bytes) -> None:
        """Put the object."""
        self.files.pipe_file(f"{self.root}/{key}", data)

    def create(self, key: str, data: bytes) -> None:
        """Put the object with If-None-Match."""
        with self._taken(key):
            self.files.pipe_file(f"{self.root}/{key}", data, mode="create")

    def open_upload(self, key: str, part_bytes: int) -> "S3File":
        """An object sent in parts, each held in memory; nobody sees it before `finish_upload`."""
        return self.files.open(f"{self.root}/{key}", "xb", block_size=part_bytes, autocommit=False)

    def finish_upload(self, key: str, upload: "S3File") -> None:
        """Make the object of its parts, as exclusively as `create`."""
        with self._taken(key):
            upload.close()
            upload.commit()

    @contextmanager
    def _taken(self, key: str) -> Generator[None]:
        """Servers' different refusals of If-None-Match as FileExistsError."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileExistsError) or (error.errno in TAKEN and self.exists(key)):
                raise FileExistsError(key) from error
            raise

    def open(self, key: str) -> BinaryIO:
        """The object as a stream."""
        return self.files.open(f"{self.root}/{key}", "rb")

    def list(self, prefix: str) -> list[str]:
        """Sorted keys below a prefix."""
        top = f"{self.root}/{prefix}" if prefix else self.root
        found = self.files.find(top)  # the prefix itself where objects appeared after an empty listing
        return sorted(name.removeprefix(f"{self.root}/") for name in found if name.startswith(f"{top}/"))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """The objects below a prefix, a thousand a request."""
        bucket, _, root = self.root.partition("/")
        below = "".join(f"{part}/" for part in (root, prefix) if part)
        more: dict[str, str] = {}
        while True:
            page = self.files.call_s3("list_objects_v2", Bucket=bucket, Prefix=below, MaxKeys=PAGE, **more)
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(f"{root}/") if root else found["Key"]
                yield StoredObject(key, found["Size"], found["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def touch(self, key: str) -> None:
        """Copy the object onto itself, which sets its time and fails where it is gone."""
        bucket, _, name = f"{self.root}/{key}".partition("/")
        source = {"Bucket": bucket, "Key": name}
        self.files.call_s3("copy_object", Bucket=bucket, Key=name, CopySource=source, MetadataDirective="REPLACE")

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove the objects, a thousand a request."""
        bucket, _, root = self.root.partition("/")
        names = [{"Key": f"{root}/{key}" if root else key} for key in keys]
        for start in range(0, len(names), PAGE):
            some = {"Objects": names[start : start + PAGE], "Quiet": True}
            if failed := self.files.call_s3("delete_objects", Bucket=bucket, Delete=some).get("Errors"):
                raise OSError(f"{failed[0]['Key']} cannot be deleted: {failed[0].get('Message', 'no reason given')}")

    def delete(self, key: str) -> None:
        """Remove the object."""
        if self.exists(key):
            self.files.rm_file(f"{self.root}/{key}")


@cache
def _closed_at_exit(client: "S3FileSystem", run: Run) -> "S3FileSystem":
    """The client; s3fs closes only those that block."""

    def close() -> None:
        with suppress(RuntimeError):  # it was never asked for anything
            run(client.s3.close())

    atexit.register(close)
    return client


def s3_errors() -> tuple[type[Exception], ...]:
    """What a bucket raises when it cannot be reached, read or written."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)
