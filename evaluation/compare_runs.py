"""Sweeps by the names that people give them, and in what two of them differ beside their numbers."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from evaluation.results import EvaluationRun, SweepSeal, finished_sweep, read_seal
from infra.errors import UserError
from infra.lake import Lake
from infra.params import flatten
from infra.settings import Settings
from infra.tracking import finished_fingerprints, run_fingerprint
from training.runs import seal_key

FOLDER = "runs/evaluate"
EXPERIMENT = "evaluate"
RECENT = ("newest", "previous")
SHORTEST = 4  # characters of a fingerprint
SHOWN = 5


class Side(NamedTuple):
    """One checkpoint of a finished sweep: its rows, and the seal as if the sweep had judged it alone."""

    run: EvaluationRun
    seal: SweepSeal
    alone: bool

    @property
    def fingerprint(self) -> str:
        """Of the sweep."""
        return self.seal.run


def find_sweeps(lake: Lake, names: Sequence[str], settings: Settings | None = None) -> list[Side]:
    """The finished sweeps of these names, in order; of one that judged several checkpoints, the first of these.

    One name alone, of a sweep of several checkpoints, stands for all of these: the last ones first, then the one that
    the sweep was made for.

    Args:
        names: a fingerprint or at least SHORTEST characters of one, a key or url in the lake, the id of the sweep's
            parent run in MLflow, or one of RECENT as MLflow knows them; `NAME@CHECKPOINT` for another checkpoint.

    Raises:
        UserError: fewer than two names or checkpoints, the same twice, or a name of none or of several of them.
    """
    known = finished_keys(lake)
    if len(names) == 1 and len(sides := _sides(lake, _key(lake, known, names[0], settings))) > 1:
        return [*sides[1:], sides[0]]
    if len(names) < 2:
        raise UserError(f"{names[0] if names else 'nothing'} alone cannot be compared: name at least two sweeps")
    chosen: dict[tuple[str, str], tuple[str, Side]] = {}
    for name in names:
        sweep, _, checkpoint = name.partition("@")
        key = _key(lake, known, sweep, settings)
        side = _side(_sides(lake, key), checkpoint, name)
        same = chosen.setdefault((key, side.seal.base), (name, side))
        if same[1] is not side:
            raise UserError(f"{same[0]} and {name} are the same sweep, {key}: name two that differ")
    return [side for _, side in chosen.values()]


def _sides(lake: Lake, key: str) -> list[Side]:
    run, seal = finished_sweep(lake, key), read_seal(lake, key)
    assert run is not None
    if not seal.others:
        return [Side(run, seal, True)]
    return [
        Side(
            replace(run, table=run.table[run.table["checkpoint"] == one.name]),
            seal.model_copy(update={"base": one.base, "controls": one.controls, "others": ()}),
            False,
        )
        for one in seal.checkpoints
    ]


def _side(sides: Sequence[Side], checkpoint: str, name: str) -> Side:
    names = [side.seal.checkpoints[0].name for side in sides]
    found = [side for side, known in zip(sides, names, strict=True) if known.startswith(checkpoint)]
    if not checkpoint or len(found) == 1:
        return sides[0] if not checkpoint else found[0]
    raise UserError(f"{name} is no one checkpoint of that sweep: it has {', '.join(names)}")


def finished_keys(lake: Lake) -> list[str]:
    """The keys of all finished sweeps, sorted."""
    return [
        key.removesuffix(seal_key("")) for key in lake.list(FOLDER) if re.fullmatch(f"{FOLDER}/[^/]+/seal.json", key)
    ]


def _key(lake: Lake, known: Sequence[str], name: str, settings: Settings | None) -> str:
    if name in RECENT:
        return _recent(lake, known, name, settings)
    start = name.rstrip("/").rsplit("/", 1)[-1]
    found = [key for key in known if key.startswith(f"{FOLDER}/{start}")] if len(start) >= SHORTEST else []
    if not found and re.fullmatch("[0-9a-f]{32}", start):
        found = [key for key in known if key == f"{FOLDER}/{run_fingerprint(start, settings)}"]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name} may be any of {_listed(found)}: give more characters")
    there = f"there are {_listed(known)}" if known else "it has none yet; run `meddiff evaluate` first"
    raise UserError(f"{lake.url} has no finished sweep {name!r}: {there}")


def _recent(lake: Lake, known: Sequence[str], name: str, settings: Settings | None) -> str:
    keys = [f"{FOLDER}/{fingerprint}" for fingerprint in finished_fingerprints(EXPERIMENT, settings)]
    here, place = [key for key in keys if key in known], RECENT.index(name)
    if place < len(here):
        return here[place]
    told = f"MLflow knows {len(here)} of the {len(known)} finished sweeps in {lake.url}"
    raise UserError(f"there is no {name} sweep, because {told}: name it by its fingerprint")


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(key.rsplit("/", 1)[-1] for key in keys[:SHOWN]) + more


def short_names(sides: Sequence[Side]) -> list[str]:
    """The first characters of each fingerprint, as many as it takes to tell them apart, at least eight.

    A sweep of several checkpoints has the checkpoint's behind it.
    """
    every = [(side.fingerprint, "" if side.alone else f"@{side.seal.checkpoints[0].name}") for side in sides]
    length = next(n for n in range(8, 66) if len({_short(*names, n) for names in every}) == len(every))
    return [_short(*names, length) for names in every]


def _short(sweep: str, checkpoint: str, length: int) -> str:
    return sweep[:length] + checkpoint[: length + 1]


def differences(seals: Sequence[SweepSeal]) -> dict[str, list[str]]:
    """What the sweeps do not share: models, data, recipe and dotted fields of their configs, each one's value."""
    every = [_facts(seal) for seal in seals]
    names = dict.fromkeys(name for facts in every for name in facts)
    values = {name: [facts.get(name, "–") for facts in every] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def _facts(seal: SweepSeal) -> dict[str, str]:
    controls = {f"control.{name}": key for name, key in seal.controls.items()}
    return {"data": seal.manifest, "recipe": seal.recipe, "base": seal.base} | controls | flatten(seal.config)


def warnings(seals: Sequence[SweepSeal]) -> list[str]:
    """One sentence for each thing that makes numbers of different sweeps less than comparable."""
    said = []
    if len({seal.manifest for seal in seals}) > 1:
        said.append("the sweeps are of different data: numbers are over the patients in common")
    if len({seal.recipe for seal in seals}) > 1:
        said.append("the sweeps are of different recipes: the same patient was judged on another grid")
    return said
