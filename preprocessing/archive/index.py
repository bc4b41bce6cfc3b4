"""The listing of an archive, kept as `<archive>.index.json`, because to list 300 GB of tar again takes a full scan.

It is a cache: one that is damaged, foreign or older than its archive (size and modification time) is made anew, and
where the folder cannot be written there is none.
"""

import json
import logging
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.local_files import LocalFiles
from preprocessing.archive.members import Catalogue, Member

SUFFIX = ".index.json"
FORMAT = 1
log = logging.getLogger(__name__)


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns: what an index is valid for.

    Raises:
        UserError: the file is not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"the archive {path} cannot be read: {error}; give the path of the file.") from None
    return status.st_size, status.st_mtime_ns


def load_index(path: Path, known: tuple[int, int]) -> Catalogue | None:
    """The catalogue kept for the archive while it had this stamp; None where there is none of use."""
    try:
        values = json.loads(path.with_name(path.name + SUFFIX).read_bytes())
        if values["format"] != FORMAT or tuple(values["stamp"]) != known:
            return None
        members = tuple(_member(row) for row in values["members"])
        return Catalogue(members, tuple(map(str, values["findings"])), bool(values["encrypted"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def save_index(path: Path, known: tuple[int, int], catalogue: Catalogue) -> None:
    """Keep the catalogue beside the archive, whole or not at all."""
    values = {
        "format": FORMAT,
        "stamp": known,
        "encrypted": catalogue.encrypted,
        "findings": catalogue.findings,
        "members": catalogue.members,
    }
    try:
        LocalFiles(path.parent).write(path.name + SUFFIX, json.dumps(values).encode())
    except OSError as error:
        log.info("no index is kept beside %s (%s); it is listed again next time", path, error)


def _member(row: list[Any]) -> Member:
    name, size, packed, place, crc, problem = row
    numbers = (size, packed, place) if crc is None else (size, packed, place, crc)
    if not isinstance(name, str) or not isinstance(problem, str) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"{row} is no member")
    return Member(name, size, packed, place, crc, problem)
