"""Measuring one cell, in this process or in a worker's: models are opened, the task runs, what it found is sealed.

What went wrong comes back as rows with their reason and leaves the cell without a seal, so the next sweep tries again.
That a task cannot be measured on these data is a result like any other, and is sealed.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from evaluation.cell_files import Measured, write_cell
from evaluation.cells import Cell, pace_of_cells
from evaluation.config import EvaluateConfig, TaskName, used_controls, used_segmenter_key
from evaluation.segmenters import LakeSegmenter
from evaluation.table import validate
from evaluation.tasks import run_task
from evaluation.tasks.context import Row, TaskContext, TaskResult
from infra.errors import UserError
from infra.lake import Lake
from infra.spent import Device, Spent, note_spent
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from training.config import ModelConfig
from training.loading import load_network
from training.precision import Precision, cpu_threads, default_device, place
from training.segmentation import open_segmenter

logger = logging.getLogger(__name__)

RunTask = Callable[[TaskName, TaskContext], TaskResult]
OnEvaluation = Callable[[int], None]


@dataclass(frozen=True)
class CellJob:
    """All that a worker needs to measure a cell; `config` is the sweep's."""

    lake: Lake
    recipe: Recipe
    manifest: int
    config: EvaluateConfig
    cell: Cell
    key: str


@dataclass(frozen=True)
class Unsealed:
    """A cell that has to be tried again: what went wrong, and what there is to show meanwhile."""

    problem: str
    found: Measured


def measure_cell(job: CellJob, on_evaluation: OnEvaluation | None = None, run: RunTask = run_task) -> Unsealed | None:
    """Measures a cell into the lake; None where it is sealed now."""
    began, cell, config = time.perf_counter(), job.cell, job.cell.config(job.config)
    try:
        context, lost = open_context(job, config)
    except UserError as error:
        logger.warning("%s could not be measured: %s", cell.name, error)
        return unmeasured(cell, str(error))
    context.on_evaluation = on_evaluation
    with cpu_threads(config.threads):
        result, problem = _guarded(cell, context, run)
    rows = validate(
        [*result.rows, *(row for reason in lost for row in context.unmeasured(cell.task, "", "", "", reason))]
    )
    problem = "; ".join(filter(None, (problem, *lost)))
    found = Measured(rows, result.pictures, result.curves, context.evaluations)
    if problem:
        return Unsealed(problem, found)
    seconds = time.perf_counter() - began
    write_cell(job.lake, job.key, cell, found, seconds)
    device: Device = "cuda" if context.device.startswith("cuda") else "cpu"
    spent = Spent(count=1, seconds=seconds, device=device)
    note_spent(job.lake, "cells", pace_of_cells(cell, job.config, context.model), spent)
    return None


def unmeasured(cell: Cell, reason: str) -> Unsealed:
    """A cell of which there is nothing but the reason."""
    row = {"checkpoint": cell.checkpoint.name, "task": cell.task, "region": cell.region, "seed": cell.seed}
    return Unsealed(reason, Measured(validate([{**row, "method": "ours", "reason": reason}])))


def _guarded(cell: Cell, context: TaskContext, run: RunTask) -> tuple[TaskResult, str]:
    """What a task found and what broke it; "" for what was to be expected of the data."""
    try:
        result = run(cell.task, context)
        validate(result.rows)
    except UserError as error:
        logger.warning("%s could not be measured: %s", cell.name, error)
        return TaskResult(context.unmeasured(cell.task, "", "", "", str(error))), ""
    except Exception as error:
        logger.exception("%s failed", cell.name)
        problem = f"{type(error).__name__}: {error}"
        rows: list[Row] = context.unmeasured(cell.task, "", "", "", f"the task failed ({problem})")
        return TaskResult(rows), problem
    return result, ""


def open_context(job: CellJob, config: EvaluateConfig) -> tuple[TaskContext, list[str]]:
    """The models on this machine's device and all else that a task is given; which other networks could not be loaded.

    Raises:
        UserError: the base model cannot be loaded.
    """
    checkpoint, lost = job.cell.checkpoint, []
    base, model = _network(job.lake, checkpoint.base, config.precision)
    controls: dict[str, nn.Module] = {}
    for name, key in used_controls(job.cell.task, checkpoint).items():
        try:
            controls[name], _ = _network(job.lake, key, config.precision)
        except UserError as error:
            logger.warning("the ControlNet for %s is left out: %s", name, error)
            lost.append(f"the ControlNet for {name} is left out: {error}")
    key = used_segmenter_key(config, _manifest(job.lake, job.recipe, job.manifest).fingerprint)
    segmenter = None
    if key:
        try:
            segmenter = _segmenter(job.lake, key)
        except UserError as error:
            logger.warning("the segmenter is left out: %s", error)
            lost.append(f"the segmenter is left out: {error}")
    context = TaskContext(
        lake=job.lake,
        manifest=_manifest(job.lake, job.recipe, job.manifest),
        recipe=job.recipe,
        base=base,
        controls=controls,
        segmenter=segmenter,
        model=model,
        config=config,
        checkpoint=checkpoint.name,
        device=str(default_device()),
    )
    return context, lost


@lru_cache(maxsize=4)
def _network(lake: Lake, key: str, precision: Precision) -> tuple[nn.Module, ModelConfig]:
    network, model, _ = load_network(lake, key)
    return place(network, default_device(), precision), model


@lru_cache(maxsize=1)
def _segmenter(lake: Lake, key: str) -> LakeSegmenter:
    return LakeSegmenter(open_segmenter(lake, key))


@lru_cache(maxsize=1)
def _manifest(lake: Lake, recipe: Recipe, number: int) -> Manifest:
    return read_manifest(lake, recipe, number)


def forget() -> None:
    """Lets go of the models and the manifest that this process holds between cells."""
    _network.cache_clear()
    _segmenter.cache_clear()
    _manifest.cache_clear()
