"""The meter: how many bytes travelled for a block of code, whichever threads pulled them."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar


class Meter:
    """A count of bytes that several threads add to."""

    def __init__(self) -> None:
        self.received = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Another `count` bytes travelled."""
        with self._lock:
            self.received += count


_meter: ContextVar[Meter | None] = ContextVar("meddiff_meter", default=None)


@contextmanager
def metered() -> Generator[Meter]:
    """Counts what is pulled inside the block."""
    meter = Meter()
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)


def current_meter() -> Meter:
    """The meter of the innermost block around the caller; one that nobody reads where there is none.

    Threads do not inherit it: ask for it where the work is handed out.
    """
    return _meter.get() or Meter()
