"""An ordered outbox: deliveries to a server that may be away are kept, offered again, and named if never taken."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

RETRY_AFTER_S = 30.0


class RefusedError(Exception):
    """The server answered and will never take this delivery; it is dropped and named, the next ones go on."""


@dataclass
class Delivery:
    """One thing to deliver: what it is called, how it is sent, and values worth keeping if it never arrives."""

    label: str
    send: Callable[[], object]
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outbox:
    """Deliveries in order. After a failure the server is left alone for a while, so that a dead one costs seconds."""

    title: str
    pending: list[Delivery] = field(default_factory=list)
    refused: list[Delivery] = field(default_factory=list)
    quiet_until: float = 0.0

    def put(self, label: str, send: Callable[[], object], values: dict[str, Any] | None = None) -> None:
        """Adds a delivery and offers everything pending, unless the server is being left alone."""
        self.pending.append(Delivery(label, send, values or {}))
        if time.monotonic() >= self.quiet_until:
            self.flush()

    def flush(self) -> None:
        """Offers everything pending, in order, up to the first delivery that gets no answer."""
        while self.pending:
            try:
                self.pending[0].send()
            except RefusedError as error:
                _log.warning("%s: refused %s: %s", self.title, self.pending[0].label, error)
                self.refused.append(self.pending[0])
            except Exception as error:  # noqa: BLE001 - a witness that is away must not end the work
                self.quiet_until = time.monotonic() + RETRY_AFTER_S
                _log.warning("%s: no answer (%s); kept for later", self.title, first_line(error))
                return
            del self.pending[0]

    def save_undelivered(self, path: Path, about: dict[str, Any]) -> None:
        """Writes what was refused or is still pending, with its values, as JSON; nothing if all arrived."""
        lost = self.refused + self.pending
        if not lost:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        missing = [{"what": delivery.label, **delivery.values} for delivery in lost]
        path.write_text(json.dumps({**about, "missing": missing}, indent=1))
        _log.warning("%s: %d entries are missing there; their values are in %s", self.title, len(lost), path)


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
