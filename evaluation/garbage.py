"""Garbage among runs: what is unfinished for long, and what is neither new enough nor part of anything that is kept.

Kept are the newest of each stage, the champion and the one before it, what an alias in MLflow names, what was written
or used within the grace period, and all that these are made of: a sweep of its models and cells, a model of its base.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evaluation.champion import read_champion
from evaluation.config import Checkpoint
from infra.errors import UserError
from infra.garbage import Garbage, Gathered, gather
from infra.lake import Lake
from training.runs import FORMAT, seal_key, start_key

RUN = re.compile(r"(runs/[^/]+/[^/]+)/.+", re.DOTALL)
STAGES = ("promote", "evaluate", "cells", "segmenter", "finetune", "pretrain")  # what is made of others before those
COUNTED = ("pretrain", "finetune", "segmenter", "evaluate")  # stages of which the newest are kept
MODELS = ("pretrain", "finetune", "segmenter")


@dataclass
class Runs:
    """The runs of a lake by key, as one listing has them; what a run notes is read once."""

    lake: Lake
    found: dict[str, Gathered]

    def __post_init__(self) -> None:
        self._notes: dict[str, dict[str, Any]] = {}

    def notes(self, key: str) -> dict[str, Any]:
        """The seal of a finished run, of an unfinished one what it began with; empty where there is neither.

        Raises:
            UserError: it cannot be read, or a newer meddiff wrote it: what it is made of cannot be told.
        """
        if key not in self._notes:
            self._notes[key] = self._read(key)
        return self._notes[key]

    def _read(self, key: str) -> dict[str, Any]:
        at = seal_key(key) if self.found[key].sealed else start_key(key)
        try:
            values = json.loads(self.lake.read(at))
            number = values.get("format", FORMAT)
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError) as error:
            raise UserError(f"{self.lake.url_of(at)} cannot be read ({error}); remove it, then collect again") from None
        if number > FORMAT:
            raise UserError(f"{self.lake.url_of(at)} has format {number}; this meddiff reads up to {FORMAT}")
        return values


def run_garbage(
    lake: Lake, *, keep: int | None, cutoff: datetime, named: Collection[str] = ()
) -> tuple[list[Garbage], set[str]]:
    """The runs that may go, and the fingerprints of the data that the others were made of.

    Args:
        lake: whose.
        keep: so many finished runs of each stage, of each task of fine-tuning, are kept; None = all.
        cutoff: what was written or used later is kept.
        named: fingerprints of runs that aliases in MLflow name.

    Raises:
        UserError: the seal of a run cannot be read.
    """
    runs = Runs(lake, gather(lake.objects("runs"), _run_of, seal_key))
    kept = _closure(runs, {*_newest(runs, keep), *_in_use(runs, cutoff, named), *_champions(lake)})
    kept |= {key for key in runs.found if _stage(key) == "promote" and runs.notes(key).get("sweep") in kept}
    garbage = [
        found.as_garbage(_stage(key), key, _why(key, found, keep), seal=seal_key(key))
        for key, found in sorted(runs.found.items())
        if key not in kept and found.newest < cutoff
    ]
    needed = {runs.notes(key).get("manifest", "") for key in kept if key in runs.found}
    return garbage, needed - {""}


def _run_of(key: str) -> str:
    match = RUN.fullmatch(key)
    return match[1] if match and _stage(key) in STAGES else ""


def _stage(key: str) -> str:
    return key.split("/")[1]


def _why(key: str, found: Gathered, keep: int | None) -> str:
    if not found.sealed:
        return "unfinished"
    stage = _stage(key)
    if stage == "cells":
        return "in no kept sweep"
    return "its sweep is not kept" if stage == "promote" else f"not of the {keep} newest, nor used by them"


def _newest(runs: Runs, keep: int | None) -> Iterator[str]:
    groups: dict[tuple[str, str], list[tuple[datetime, str]]] = {}
    for key, found in runs.found.items():
        if found.sealed and _stage(key) in COUNTED:
            task = str(runs.notes(key).get("config", {}).get("task", "")) if _stage(key) == "finetune" else ""
            groups.setdefault((_stage(key), task), []).append((found.sealed, key))
    for group in groups.values():
        yield from (key for _, key in sorted(group, reverse=True)[:keep])


def _in_use(runs: Runs, cutoff: datetime, named: Collection[str]) -> Iterator[str]:
    for key, found in runs.found.items():
        if found.newest >= cutoff or (_stage(key) in MODELS and key.rpartition("/")[2] in named):
            yield key


def _champions(lake: Lake) -> Iterator[str]:
    champion = read_champion(lake)
    if champion is not None:
        yield champion.sweep
        for checkpoint in filter(None, (champion.checkpoint, champion.against)):
            yield from checkpoint.models.values()


def _closure(runs: Runs, roots: Collection[str]) -> set[str]:
    """The roots and all that they are made of."""
    kept: set[str] = set()
    waiting = set(roots)
    while waiting:
        key = waiting.pop()
        kept.add(key)
        if key in runs.found:
            waiting |= set(_made_of(_stage(key), runs.notes(key))) - kept
    return kept


def _made_of(stage: str, notes: dict[str, Any]) -> Iterator[str]:
    """The keys of the runs that a run of this stage is made of, by what it notes."""
    if stage == "cells":
        yield from _models(notes.get("cell", {}).get("checkpoint"))
    elif stage == "promote":
        yield notes.get("sweep", "")
        yield from _models(notes.get("candidate"))
    else:
        yield notes.get("base", "")
        yield notes.get("segmenter", "")
        yield from notes.get("controls", {}).values()
        yield from notes.get("cells", ())
        for other in notes.get("others", ()):
            yield from _models(other)


def _models(checkpoint: dict[str, Any] | None) -> Iterator[str]:
    if checkpoint:
        yield from Checkpoint.model_validate(checkpoint).models.values()
