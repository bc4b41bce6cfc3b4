"""A remote file: what a source declares of it, what its server says of it, how its bytes arrive, how that fails.

No message and no repr holds a secret: tokens are named by environment variable, urls lose their query.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict, Field, field_validator

from infra.config import Config
from infra.errors import UserError

SCHEMES = ("https", "http", "s3", "file")


class TransferError(UserError):
    """A file that cannot be had; asking again at once would not help."""


class WrongBytesError(TransferError):
    """What arrived is not what was declared."""


class TransientError(TransferError):
    """A failure that passes: tried again, after `retry_after_s` at the soonest."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ChangedError(TransientError):
    """The remote file is another one than that whose first part we hold."""


class Version(Config):
    """What a server says of a file without sending it; an empty field is one it does not say."""

    etag: str = ""
    size: int | None = Field(None, ge=0, description="bytes")
    modified: str = ""

    def matches(self, other: Self) -> bool:
        """Whether nothing that both know differs; equal ETags outweigh dates, which mirrors set anew."""
        if self.size is not None and other.size is not None and self.size != other.size:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return not (self.modified and other.modified) or self.modified == other.modified


class Remote(Config):
    """A file at an http(s), s3 or file url, or at an absolute path, with what its source declares of it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str
    md5: str = Field("", pattern="^([0-9a-f]{32})?$")
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    size: int | None = Field(None, ge=0, description="bytes")
    version: Version | None = Field(None, description="what a listing saw; another version is refused, not stored")
    token_env: str = Field("", description="environment variable whose token http sends as Bearer")
    access: str = Field("", description="where to ask for access, shown to who is refused")
    endpoint: str = Field("", description="of an s3 url; none = AWS_ENDPOINT_URL, else AWS")
    anonymous: bool = Field(False, description="sign no s3 request")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError(f"{redacted(url)} holds a password: name an environment variable in token_env instead")
        if not url.startswith("/") and parts.scheme not in SCHEMES:
            raise ValueError(f"{redacted(url)} is neither an absolute path nor a url of {', '.join(SCHEMES)}")
        return url

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, self.name if name == "url" else value) for name, value in super().__repr_args__())

    @property
    def name(self) -> str:
        """The url as it may be shown and stored."""
        return redacted(self.url)

    @property
    def scheme(self) -> str:
        """One of http, https, s3, file."""
        return "file" if self.url.startswith("/") else urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """Whom a connection goes to; "" is this machine."""
        return urlsplit(self.endpoint).netloc or "s3" if self.scheme == "s3" else urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """The path of a file url or of a path."""
        return unquote(self.url.removeprefix("file://")) if self.url.startswith("file:") else self.url


@dataclass(frozen=True)
class Stream:
    """The bytes of one version from `start` on; `resumable` where the server lets a later answer be tied to it."""

    version: Version
    start: int
    chunks: Iterator[bytes]
    resumable: bool


class TransferPolicy(Config):
    """How patiently and how widely to pull."""

    attempts: int = Field(8, ge=1, description="tries in a row that bring no new byte")
    first_wait_s: float = Field(1.0, ge=0, description="before the second try; doubles, with jitter")
    longest_wait_s: float = Field(60.0, ge=0)
    longest_retry_after_s: float = Field(600.0, ge=0, description="a server that asks for more is given up")
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(60.0, gt=0, description="without a byte")
    connections: int = Field(8, ge=1)
    connections_per_host: int = Field(4, ge=1)


def redacted(url: str) -> str:
    """A url without password, query and fragment; a path as it is."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?…' if parts.query else ''}"
