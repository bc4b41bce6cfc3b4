"""Progress: where a stage tells how far it is; a terminal, an artifact or a test listens.

A flow's parameters are data, so a progress bar cannot be one of them: the command that runs a flow in its own process
sets a watcher for the time of the run instead.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[str, int, int, str], None]
"""Called with (stage, done, total, note)."""

_watcher: ContextVar[Watcher | None] = ContextVar("meddiff_watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Generator[None]:
    """Progress of every stage inside the block goes to `watcher` as well."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(stage: str, done: int, total: int, note: str = "") -> None:
    """Pass one step of progress on to whoever watches."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(stage, done, total, note)
