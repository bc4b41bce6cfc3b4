"""Spent: what a kind of work took when it was last done in this lake, for estimates of the same work to come.

A note lies under `costs/<kind>/<of>.json`, where `of` is a fingerprint over what decides how long the work takes. It
says how long a machine was busy, so it is part of no fingerprint; one that is lost or damaged is only unknown.
"""

from typing import Literal

from pydantic import ValidationError

from infra.config import Config
from infra.lake import Lake

Kind = Literal["cases", "steps", "cells"]
Device = Literal["cpu", "cuda"]


class Spent(Config):
    """What `count` units of work took in all.

    `seconds` are those of the one process, or of the processes of one run, that did them; `received` bytes travelled,
    `stored` bytes in `objects` objects came into the lake.
    """

    count: int
    seconds: float
    received: int = 0
    stored: int = 0
    objects: int = 0
    device: Device = "cpu"


def note_spent(lake: Lake, kind: Kind, of: str, spent: Spent) -> None:
    """Notes what work took, in place of what it took before; nothing where none was done."""
    if spent.count:
        lake.write(_key(kind, of), spent.model_dump_json().encode())


def read_spent(lake: Lake, kind: Kind, of: str) -> Spent | None:
    """What such work took when it was last done here; None where that is not known."""
    try:
        found = Spent.model_validate_json(lake.read(_key(kind, of)))
    except (FileNotFoundError, ValidationError):
        return None
    return found if found.count else None


def _key(kind: Kind, of: str) -> str:
    return f"costs/{kind}/{of}.json"
