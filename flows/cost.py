"""Cost: what a plan's stages would take, from what such work took in this lake, else from `UNIT_COSTS`.

What was measured neither here nor there is None, never 0. Only the notes under `costs/` are read, one a kind of work.
"""

import re
from collections.abc import Iterable, Sequence

from evaluation.cells import Cell, pace_of_cells
from evaluation.config import EVALUATE_PRESETS, EvaluateConfig
from flows.unit_costs import UNIT_COSTS, Pace, UnitCosts
from infra.config import Config
from infra.lake import Lake
from infra.spent import Kind, Spent, read_spent
from preprocessing.ingest_counts import pace_of_cases
from preprocessing.recipe import RECIPES, Recipe
from preprocessing.sources.base import SourceInfo
from training.config import FINETUNE_PRESETS, PRETRAIN_PRESETS, SEGMENTER_PRESETS, ModelConfig, TrainedConfig
from training.runs import pace_of_steps

SIZE = re.compile(r"([\d.]+) (MB|GB|TB)( a case)?")
BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
HOUR = 3600.0


class Cost(Config):
    """What a stage would take; None = not known.

    Conversion's `cpu_hours` are those of one core, a model's on a CPU those of the machine.
    """

    pull_bytes: int | None = None
    store_bytes: int | None = None
    objects: int | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None


FREE = Cost(pull_bytes=0, store_bytes=0, objects=0, cpu_hours=0.0, gpu_hours=0.0)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of what is known; None where nothing is."""
    values = [cost.model_dump() for cost in costs]
    known = {name: [value[name] for value in values if value[name] is not None] for name in Cost.model_fields}
    return Cost(**{name: sum(some) if some else None for name, some in known.items()})


def ingest_cost(
    lake: Lake | None, recipe: Recipe, info: SourceInfo, pending: int | None, units: UnitCosts = UNIT_COSTS
) -> Cost:
    """What it takes to pull and convert so many cases of a source; `pending` None = nobody knows how many."""
    if pending is None:
        return Cost(gpu_hours=0.0)
    spent = _spent(lake, "cases", pace_of_cases(recipe, info.name))
    if spent:
        received, stored, objects = (value / spent.count for value in (spent.received, spent.stored, spent.objects))
        seconds: float | None = spent.seconds / spent.count
    else:
        case = next((case for name, case in units.cases.items() if RECIPES[name]().stored == recipe.stored), None)
        received = pulled_per_case(info)
        stored, objects, seconds = (case.stored, case.objects, case.seconds) if case else (None, None, None)
    return Cost(
        pull_bytes=_times(pending, received),
        store_bytes=_times(pending, stored),
        objects=_times(pending, objects),
        cpu_hours=None if seconds is None else pending * seconds / HOUR,
        gpu_hours=0.0,
    )


def pulled_per_case(info: SourceInfo) -> float | None:
    """Bytes that a case of the catalogue's size has to travel; 0 for what is on this machine or made here."""
    if info.access == "local" or info.name == "phantom":
        return 0.0
    found = SIZE.search(info.size)
    if found is None:
        return None
    size = float(found[1]) * BYTES[found[2]]
    return size if found[3] else size / info.cases if info.cases else None


def training_cost(
    lake: Lake | None, config: TrainedConfig, model: ModelConfig | None, units: UnitCosts = UNIT_COSTS
) -> Cost:
    """What all the steps of a run take."""
    of = pace_of_steps(config, model)
    pace = _pace(_spent(lake, "steps", of)) or _measured_steps(units).get(of)
    return _on_device([pace.replace(seconds=config.train.iterations * pace.seconds) if pace else None])


def cells_cost(
    lake: Lake | None, cells: Sequence[Cell], config: EvaluateConfig, model: ModelConfig, units: UnitCosts = UNIT_COSTS
) -> Cost:
    """What measuring these cells of a sweep takes."""
    paces = {(cell.task, cell.region): _cell_pace(lake, cell, config, model, units) for cell in _kinds(cells)}
    return _on_device([paces[cell.task, cell.region] for cell in cells])


def _kinds(cells: Sequence[Cell]) -> list[Cell]:
    """One cell of each kind that takes its own time: neither the weights nor the seed make a difference."""
    return list({(cell.task, cell.region): cell for cell in cells}.values())


def _cell_pace(
    lake: Lake | None, cell: Cell, config: EvaluateConfig, model: ModelConfig, units: UnitCosts
) -> Pace | None:
    of = pace_of_cells(cell, config, model)
    is_tiny = of == pace_of_cells(cell, EVALUATE_PRESETS["tiny"](), PRETRAIN_PRESETS["tiny"]().model)
    return _pace(_spent(lake, "cells", of)) or (units.cells.get(cell.task) if is_tiny else None)


def _measured_steps(units: UnitCosts) -> dict[str, Pace]:
    """The measured paces of the presets, by what is noted of a run with them."""
    known = {}
    for name, pace in units.steps.items():
        preset, _, task = name.partition(" ")
        if task == "segmenter":
            known[pace_of_steps(SEGMENTER_PRESETS[preset](), None)] = pace
            continue
        model = PRETRAIN_PRESETS[preset]().model
        config = FINETUNE_PRESETS[preset](task) if task else PRETRAIN_PRESETS[preset]()  # ty: ignore[invalid-argument-type]
        known[pace_of_steps(config, model)] = pace
    return known


def _spent(lake: Lake | None, kind: Kind, of: str) -> Spent | None:
    return read_spent(lake, kind, of) if lake else None


def _pace(spent: Spent | None) -> Pace | None:
    return Pace(seconds=spent.seconds / spent.count, device=spent.device) if spent else None


def _on_device(paces: Sequence[Pace | None]) -> Cost:
    """Work of a model: hours on the device that it was measured on, nothing pulled; unknown if any part is."""
    nothing = Cost(pull_bytes=0)
    known = [pace for pace in paces if pace]
    if len(known) < len(paces):
        return nothing
    hours = {device: sum(pace.seconds for pace in known if pace.device == device) / HOUR for device in ("cpu", "cuda")}
    return nothing.replace(cpu_hours=hours["cpu"], gpu_hours=hours["cuda"])


def _times(count: int, each: float | None) -> int | None:
    return None if each is None else round(count * each)
