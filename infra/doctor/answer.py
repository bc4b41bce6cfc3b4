"""What an HTTP server answers within a few seconds, and addresses as they may be shown: without passwords."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from infra.doctor.check import told

SECONDS = 3.0


class NoAnswerError(Exception):
    """The server refused, or nobody was there; `status` is 0 in the second case."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def answer(url: str, headers: Mapping[str, str] | None = None, body: Any = None, seconds: float = SECONDS) -> str:
    """The text of a GET, or of a POST of `body` as JSON; one try.

    Raises:
        NoAnswerError: no server, no HTTP, or a status that is no success.
    """
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **_login(url), **(headers or {})}
    try:
        request = urllib.request.Request(shown(url), data, sent)
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return reply.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            raise NoAnswerError(f"answers {error.code} {error.reason}", error.code) from error
    except (OSError, ValueError) as error:  # URLError is an OSError, a malformed url a ValueError
        reason = getattr(error, "reason", error)
        raise NoAnswerError(f"does not answer: {told(reason if isinstance(reason, OSError) else error)}") from error


def json_answer(url: str, headers: Mapping[str, str] | None = None, body: Any = None) -> Any:
    """The same, parsed.

    Raises:
        NoAnswerError: as `answer`, or what came is no JSON.
    """
    text = answer(url, headers, body)
    try:
        return json.loads(text)
    except ValueError as error:
        raise NoAnswerError(f"answers something that is no JSON: {text[:60]!r}") from error


def basic(login: str) -> dict[str, str]:
    """The header that sends `user:password`."""
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _login(url: str) -> dict[str, str]:
    """The user and password that stand in an address."""
    login, at, _ = urlsplit(url).netloc.rpartition("@")
    return basic(unquote(login)) if at else {}


def shown(url: str) -> str:
    """The address without user and password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
