"""The sweep: every task of a config on the held-out cases, as one table, pictures and a report in the lake.

The same data, models and config are the same sweep and are not measured again. A task that cannot be measured becomes a
row with its reason while the others complete; if that was unexpected, the sweep is not sealed, so the next call tries
again.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from torch import nn

from evaluation.config import EvaluateConfig, TaskName, evaluate_key
from evaluation.pictures import png, strip
from evaluation.publish import publish
from evaluation.report import ReportInput, render
from evaluation.results import EvaluationRun, SweepSeal, finished_sweep
from evaluation.table import to_parquet, validate
from evaluation.tasks import run_task
from evaluation.tasks.context import Row, TaskContext, TaskResult
from infra.errors import UserError
from infra.fingerprint import digest
from infra.lake import Lake
from infra.settings import Settings
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from training.loading import load_network
from training.precision import cpu_threads, default_device, place
from training.runs import finished_run, run_exists, seal_key

if TYPE_CHECKING:
    from evaluation.tasks.context import Picture

logger = logging.getLogger(__name__)

OnLog = Callable[[int, int, str], None]
RunTask = Callable[[TaskName, TaskContext], TaskResult]


@dataclass
class Findings:
    """What the tasks of a sweep found so far."""

    rows: list[Row] = field(default_factory=list)
    pictures: dict[str, list["Picture"]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def evaluate(
    lake: Lake,
    recipe: Recipe,
    config: EvaluateConfig,
    base_key: str,
    control_keys: Mapping[str, str],
    *,
    on_log: OnLog | None = None,
    settings: Settings | None = None,
    track: bool = True,
    run: RunTask = run_task,
) -> EvaluationRun:
    """Measures one base model and its ControlNets (by fine-tuning task) on the newest manifest, unless that is done.

    Args:
        on_log: called with (tasks done, tasks in all, what goes on).
        track: tell MLflow too; a server that is away costs seconds and loses nothing in the lake.

    Raises:
        UserError: there are no cases, the base model cannot be loaded, or not one task could be measured.
    """
    manifest = read_manifest(lake, recipe)
    key = evaluate_key(manifest.fingerprint, config, base_key, dict(control_keys))
    done = finished_sweep(lake, key)
    if done is None:
        if manifest.sealed(split="test").empty:
            raise UserError(f"{lake.url} has no test case of recipe {recipe.name!r}: ingest more patients first")
        context = open_context(lake, recipe, manifest, config, base_key, control_keys)
        with cpu_threads(config.threads):
            found = measure(context, on_log, run)
        done = _write(lake, key, context, base_key, control_keys, found)
    if track and run_exists(lake, key):
        publish(lake, done, settings)
    return done


def open_context(
    lake: Lake,
    recipe: Recipe,
    manifest: Manifest,
    config: EvaluateConfig,
    base_key: str,
    control_keys: Mapping[str, str],
) -> TaskContext:
    """The models on this machine's device, and everything else a task is given.

    Raises:
        UserError: the base model cannot be loaded. A ControlNet that cannot be is left out with a warning.
    """
    device = default_device()
    base, model, _ = load_network(lake, base_key)
    controls: dict[str, nn.Module] = {}
    for name, key in control_keys.items():
        try:
            controls[name] = place(load_network(lake, key)[0], device, config.precision)
        except UserError as error:
            logger.warning("the ControlNet for %s is left out: %s", name, error)
    return TaskContext(
        lake=lake,
        manifest=manifest,
        recipe=recipe,
        base=place(base, device, config.precision),
        controls=controls,
        model=model,
        config=config,
        checkpoint=base_key.rsplit("/", 1)[-1],
        device=str(device),
    )


def measure(context: TaskContext, on_log: OnLog | None = None, run: RunTask = run_task) -> Findings:
    """Every task of the config, one after the other; a task that fails leaves a row with its reason."""
    found, tasks = Findings(), context.config.tasks
    log = on_log or (lambda done, total, note: None)
    for index, task in enumerate(tasks):
        log(index, len(tasks), task)
        context.on_evaluation = lambda n, i=index, t=task: log(i, len(tasks), f"{t}, {n} network evaluations")
        try:
            result = run(task, context)
            validate(result.rows)
        except UserError as error:
            logger.warning("%s could not be measured: %s", task, error)
            found.rows += context.unmeasured(task, "", "", "", str(error))
        except Exception as error:
            logger.exception("%s failed", task)
            found.broken[task] = f"{type(error).__name__}: {error}"
            found.rows += context.unmeasured(task, "", "", "", f"the task failed ({found.broken[task]})")
        else:
            found.rows += result.rows
            found.pictures[task] = list(result.pictures)
    log(len(tasks), len(tasks), "report")
    return found


def _write(
    lake: Lake, key: str, context: TaskContext, base_key: str, control_keys: Mapping[str, str], found: Findings
) -> EvaluationRun:
    """Table, pictures and report, then the seal."""
    table = validate(found.rows)
    data = to_parquet(table)
    lake.write(f"{key}/table.parquet", data)
    for task, pictures in found.pictures.items():
        for index, picture in enumerate(pictures):
            lake.write(f"{key}/pictures/{task}-{index:02d}.png", png(strip(picture)))
    seal = SweepSeal(
        run=key.rsplit("/", 1)[-1],
        manifest=context.manifest.fingerprint,
        recipe=context.recipe.fingerprint,
        config=context.config.model_dump(mode="json"),
        base=base_key,
        controls=dict(control_keys),
        table=digest(data),
        evaluations=context.evaluations,
    )
    run = EvaluationRun(key, seal.run, table)
    lake.write(f"{key}/report.html", _report(lake, run, context, seal, found).encode())
    if table["value"].isna().all():
        reasons = "; ".join(dict.fromkeys(table["reason"]))
        raise UserError(f"no task could be measured: {reasons}")
    if found.broken:
        logger.warning(
            "the sweep is not sealed, because %s failed; evaluate again to repeat it", ", ".join(found.broken)
        )
    else:
        lake.write(seal_key(key), seal.model_dump_json(indent=1).encode())
    return run


def _report(lake: Lake, run: EvaluationRun, context: TaskContext, seal: SweepSeal, found: Findings) -> str:
    keys = {"Pre-training": seal.base, **{f"ControlNet, {name}": seal.controls[name] for name in context.controls}}
    trainings = {name: trained.history for name, key in keys.items() if (trained := finished_run(lake, key))}
    recipe, manifest = context.recipe, context.manifest
    facts = {
        "Data": f"{seal.manifest} (manifest {manifest.number}, {len(manifest.sealed())} cases)",
        "Recipe": f"{recipe.name}, version {recipe.version}, {recipe.spacing_mm:g} mm",
        "Base model": seal.base,
        **{f"ControlNet, {name}": key for name, key in seal.controls.items()},
        "Sweep": f"{context.config.preset}, {seal.run}",
        "Network evaluations": str(seal.evaluations),
        "Lake": lake.id,
        "Software": f"meddiff {version('meddiff')}",
    }
    small = context.config.preset == "tiny" or set(manifest.sealed()["source"]) <= {"phantom"}
    return render(ReportInput(run.table, run.aggregated, found.pictures, trainings, facts, demo=small))
