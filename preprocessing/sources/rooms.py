"""Rooms: a folder of the state folder for each ingest that has to unpack archives, removed when it is done.

The process that opened a room holds a lock on it, so that what a killed one left is known and removed by the next.
"""

import shutil
import uuid
from pathlib import Path
from typing import TextIO

from infra.file_lock import try_lock
from infra.settings import load_settings

_held: dict[str, TextIO] = {}


def room(name: str) -> Path:
    """The folder of a room on this machine."""
    return load_settings().home / "unpacked" / name


def open_room() -> str:
    """The name of a new room of this process; rooms of processes that are gone are removed."""
    name = uuid.uuid4().hex[:16]
    rooms = room(name).parent
    rooms.mkdir(parents=True, exist_ok=True)
    for lock in rooms.glob("*.lock"):
        with lock.open("a") as stream:
            if try_lock(stream):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
    stream = room(name).with_suffix(".lock").open("a")
    try_lock(stream)
    _held[name] = stream
    return name


def close_room(name: str) -> None:
    """Remove a room and all that was unpacked in it."""
    shutil.rmtree(room(name), ignore_errors=True)
    if stream := _held.pop(name, None):
        room(name).with_suffix(".lock").unlink(missing_ok=True)
        stream.close()
