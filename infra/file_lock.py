"""The kernel's lock on an open file: it ends with its process, so there is no stale one."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def try_lock(stream: IO) -> bool:
    """Whether the file is this process's alone now, until it is closed."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One process at a time is inside the block; the others wait."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
