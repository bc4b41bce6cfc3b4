"""Stopping: SIGTERM is noticed between two steps, so that what was done is kept."""

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def sigterm_noticed() -> Generator[Callable[[], bool]]:
    """Whether this process was told to end, for a block that ends itself soon; afterwards the signal is passed on.

    In a thread other than the main one signals cannot be caught: there the answer is always no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
        if told.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
