"""Sweeps by the names that people give them, and in what two of them differ beside their numbers."""

import re
from collections.abc import Sequence

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


def find_sweeps(lake: Lake, names: Sequence[str], settings: Settings | None = None) -> list[EvaluationRun]:
    """The finished sweeps of these names, in order.

    Args:
        names: a fingerprint or at least SHORTEST characters of one, a key or url in the lake, the id of the sweep's
            parent run in MLflow, or one of RECENT as MLflow knows them.

    Raises:
        UserError: fewer than two names, the same sweep twice, or a name of none or of several finished sweeps.
    """
    if len(names) < 2:
        raise UserError(f"{names[0] if names else 'nothing'} alone cannot be compared: name at least two sweeps")
    known = finished_keys(lake)
    chosen: dict[str, str] = {}
    for name in names:
        key = _key(lake, known, name, settings)
        if key in chosen:
            raise UserError(f"{chosen[key]} and {name} are the same sweep, {key}: name two that differ")
        chosen[key] = name
    return [run for key in chosen if (run := finished_sweep(lake, key))]


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


def short_names(runs: Sequence[EvaluationRun]) -> list[str]:
    """The first characters of each fingerprint, as many as it takes to tell them apart, at least eight."""
    every = [run.fingerprint for run in runs]
    length = next(n for n in range(8, 65) if len({name[:n] for name in every}) == len(every))
    return [name[:length] for name in every]


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


def read_seals(lake: Lake, runs: Sequence[EvaluationRun]) -> list[SweepSeal]:
    """The seals of finished sweeps, in order."""
    return [read_seal(lake, run.key) for run in runs]
