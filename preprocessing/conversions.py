"""Conversions: the stores that were made of one input by one recipe, and which of them counts.

The first is `<input>.zarr`. Where a case is converted again and other bytes come out (another release of a library),
they are a store of their own, `<input>-<8 characters of the seal's digest>.zarr`: no store is ever rewritten with other
bytes, so whoever reads the former goes on reading it.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from infra.lake import Lake
from preprocessing.seal import Seal, read_seal, seal_key

ROOT = "zarr.json"  # of a store: the last object before its seal


@dataclass(frozen=True)
class Conversion:
    """A store whose objects are all there, by its key; `seal` is None where it is not sealed, or no longer."""

    key: str
    written: datetime
    seal: Seal | None


def newest_conversion(lake: Lake, key: str) -> Conversion | None:
    """What was written last of the input that `key` names; None where nothing was."""
    stem = key.removesuffix(".zarr")
    root = re.compile(re.escape(stem) + rf"(-[0-9a-f]{{8}})?\.zarr/{ROOT}")
    found = [one for one in lake.objects(stem.rpartition("/")[0]) if root.fullmatch(one.key)]
    if not found:
        return None
    last = max(found, key=lambda one: (one.modified, len(one.key)))
    stored = last.key.removesuffix(f"/{ROOT}")
    return Conversion(stored, last.modified, read_seal(lake, stored))


def other_key(key: str, digest: str) -> str:
    """Where another conversion of the input that `key` names belongs, whose seal has this digest."""
    return f"{key.removesuffix('.zarr')}-{digest[:8]}.zarr"


def take(lake: Lake, conversion: Conversion) -> bool:
    """Say that a sealed store is in use again, so that `meddiff gc` leaves it; false where it is gone meanwhile."""
    try:
        lake.touch(seal_key(conversion.key))
    except FileNotFoundError:
        return False
    return True
