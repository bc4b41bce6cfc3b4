"""The sweep: every cell of a config on the held-out cases, as one table, pictures and a report in the lake.

The same data, checkpoints and config are the same sweep and are not measured again; of another sweep only those cells
are measured that none before it has. A cell that cannot be measured becomes a row with its reason while the others
complete; if that was unexpected, the sweep is not sealed, so the next call tries again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import pandas as pd

from evaluation.cell_files import Measured, read_cell
from evaluation.cells import Cell, cell_keys, cells_of
from evaluation.config import Checkpoint, EvaluateConfig, evaluate_key, used_segmenter, used_segmenter_key
from evaluation.curves import Curve
from evaluation.measure import CellJob, RunTask, Unsealed, forget, measure_cell, unmeasured
from evaluation.pictures import png, strip
from evaluation.publish import publish
from evaluation.report import ReportInput, render
from evaluation.results import EvaluationRun, SweepSeal, finished_sweep
from evaluation.table import merged, to_parquet
from evaluation.tasks import run_task
from evaluation.tasks.context import Picture
from evaluation.verdict import is_ours
from infra.cluster import fan_out
from infra.errors import UserError
from infra.fingerprint import digest
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from training.config import SegmenterConfig
from training.runs import finished_run, run_exists, seal_key, take_run

logger = logging.getLogger(__name__)

OnLog = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Sweep:
    """What is to be measured, and where."""

    lake: Lake
    recipe: Recipe
    manifest: Manifest
    config: EvaluateConfig
    checkpoints: tuple[Checkpoint, ...]

    def jobs(self) -> list[CellJob]:
        """Every cell with its place in the lake."""
        cells = cells_of(self.config, self.checkpoints, self.manifest)
        keys = cell_keys(cells, self.config, self.manifest)
        number = self.manifest.number
        return [
            CellJob(self.lake, self.recipe, number, self.config, cell, key)
            for cell, key in zip(cells, keys, strict=True)
        ]


@dataclass
class Findings:
    """What the cells of a sweep found."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    evaluations: int = 0

    def add(self, cell: Cell, found: Measured, first: str) -> None:
        """Takes what one cell found, under the name of the checkpoint asked for: two may share a task's weights.

        Curves of further checkpoints than the `first` are those of their own methods only, and named after them.
        """
        name = cell.checkpoint.name
        self.tables.append(found.table.assign(checkpoint=name))
        self.pictures.setdefault(cell.task, []).extend(found.pictures)
        ours = [curve for curve in found.curves if is_ours(curve.series)]
        named = [curve.replace(series=f"{curve.series}@{cell.checkpoint.short}") for curve in ours]
        self.curves.setdefault(cell.task, []).extend(found.curves if name == first else named)
        self.evaluations += found.evaluations


def evaluate(
    lake: Lake,
    recipe: Recipe,
    config: EvaluateConfig,
    checkpoints: Sequence[Checkpoint],
    *,
    on_log: OnLog | None = None,
    settings: Settings | None = None,
    track: bool = True,
    run: RunTask = run_task,
) -> EvaluationRun:
    """Measures checkpoints on the newest manifest, unless that is done.

    Args:
        on_log: called with (cells done, cells in all, what goes on).
        track: tell MLflow too; a server that is away costs seconds and loses nothing in the lake.
        run: how a task is run, in this process.

    Raises:
        UserError: there are no cases, or not one cell could be measured.
    """
    manifest = read_manifest(lake, recipe)
    key = evaluate_key(manifest.fingerprint, config, checkpoints)
    done = finished_sweep(lake, key)
    if done is None:
        if manifest.sealed(split="test").empty:
            raise UserError(f"{lake.url} has no test case of recipe {recipe.name!r}: ingest more patients first")
        if segmenter := used_segmenter(config):
            _train_segmenter(lake, recipe, segmenter, on_log)
        sweep = Sweep(lake, recipe, manifest, config, tuple(checkpoints))
        for run_key in (key for checkpoint in checkpoints for key in checkpoint.models.values()):
            take_run(lake, run_key)
        done = _write(sweep, key, measure(sweep, on_log, run, (settings or load_settings()).dask_address))
    if track and run_exists(lake, key):
        publish(lake, done, settings)
    return done


def _train_segmenter(lake: Lake, recipe: Recipe, config: SegmenterConfig, on_log: OnLog | None) -> None:
    """The segmenter, before the first cell asks for it; without one the cells that it reads say why they lack it."""
    from training.launch import train_segmenter

    log, steps = on_log or (lambda done, total, note: None), config.train.iterations
    try:
        train_segmenter(lake, recipe, config, on_log=lambda step, _: log(step, steps, "segmenter"))
    except UserError as error:
        logger.warning("no segmenter could be trained: %s", error)


def measure(sweep: Sweep, on_log: OnLog | None = None, run: RunTask = run_task, dask_address: str = "") -> Findings:
    """Measures the cells that are not measured yet and gathers all, in the order of the config."""
    log, jobs = on_log or (lambda done, total, note: None), sweep.jobs()
    unsealed: dict[str, Unsealed] = {}
    todo = [job for job in jobs if not take_run(sweep.lake, job.key)]
    done = len(jobs) - len(todo)
    if done:
        logger.info("%d of %d cells were measured before", done, len(jobs))

    def tell(note: str) -> None:
        log(done, len(jobs), note)

    try:
        for job, outcome in _outcomes(sweep, todo, tell, run, dask_address):
            done += 1
            log(done, len(jobs), job.cell.name)
            if outcome is not None:
                unsealed[job.key] = outcome
    finally:
        forget()
    log(done, len(jobs), "report")
    return gather(sweep.lake, jobs, unsealed)


def _outcomes(
    sweep: Sweep, todo: Sequence[CellJob], tell: Callable[[str], None], run: RunTask, dask_address: str
) -> Iterator[tuple[CellJob, Unsealed | None]]:
    """Each job with its outcome: one after the other here, or several at once in processes of their own."""
    if sweep.config.workers == 1 or len(todo) < 2:
        for job in todo:
            name = job.cell.name
            tell(name)
            yield job, measure_cell(job, lambda n, name=name: tell(f"{name}, {n} network evaluations"), run)
        return
    tell(f"{sweep.config.workers} workers")
    for job, outcome in fan_out(measure_cell, todo, address=dask_address, workers=sweep.config.workers):
        if isinstance(outcome, Exception):
            logger.warning("%s failed: %s", job.cell.name, outcome)
            outcome = unmeasured(job.cell, f"its worker failed ({type(outcome).__name__}: {outcome})")
        yield job, outcome


def gather(lake: Lake, jobs: Sequence[CellJob], unsealed: Mapping[str, Unsealed]) -> Findings:
    """The rows and pictures of all cells, measured now or before."""
    found = Findings(keys=[job.key for job in jobs])
    for job in jobs:
        try:
            broken = unsealed.get(job.key)
            measured = broken.found if broken else read_cell(lake, job.key)
        except UserError as error:
            broken = unmeasured(job.cell, str(error))
            measured = broken.found
        found.add(job.cell, measured, jobs[0].cell.checkpoint.name)
        if broken:
            found.problems[job.cell.name] = broken.problem
    return found


def _write(sweep: Sweep, key: str, found: Findings) -> EvaluationRun:
    """Table, pictures and report, then the seal."""
    lake = sweep.lake
    table = merged(found.tables)
    data = to_parquet(table)
    lake.write(f"{key}/table.parquet", data)
    for task, pictures in found.pictures.items():
        for index, picture in enumerate(pictures):
            lake.write(f"{key}/pictures/{task}-{index:02d}.png", png(strip(picture)))
    first, *others = sweep.checkpoints
    seal = SweepSeal(
        run=key.rsplit("/", 1)[-1],
        manifest=sweep.manifest.fingerprint,
        recipe=sweep.recipe.fingerprint,
        config=sweep.config.model_dump(mode="json"),
        base=first.base,
        controls=first.controls,
        others=tuple(others),
        segmenter=used_segmenter_key(sweep.config, sweep.manifest.fingerprint),
        cells=tuple(found.keys),
        table=digest(data),
        evaluations=found.evaluations,
    )
    run = EvaluationRun(key, seal.run, table)
    lake.write(f"{key}/report.html", _report(sweep, run, seal, found).encode())
    if table["value"].isna().all():
        reasons = "; ".join(dict.fromkeys(table["reason"]))
        raise UserError(f"nothing could be measured: {reasons}")
    if found.problems:
        logger.warning("the sweep is not sealed, because %s failed; evaluate again", ", ".join(found.problems))
    else:
        lake.write(seal_key(key), seal.model_dump_json(indent=1).encode())
    return run


def _report(sweep: Sweep, run: EvaluationRun, seal: SweepSeal, found: Findings) -> str:
    lake, recipe, manifest = sweep.lake, sweep.recipe, sweep.manifest
    keys = _trainings(sweep.checkpoints)
    trainings = {name: trained.history for name, key in keys.items() if (trained := finished_run(lake, key))}
    facts = {
        "Data": f"{seal.manifest} (manifest {manifest.number}, {len(manifest.sealed())} cases)",
        "Recipe": f"{recipe.name}, version {recipe.version}, {recipe.spacing_mm:g} mm",
        **keys,
        **({"Segmenter": seal.segmenter} if seal.segmenter else {}),
        "Sweep": f"{sweep.config.preset}, {seal.run}, {len(seal.cells)} cells",
        "Network evaluations": str(seal.evaluations),
        "Lake": lake.id,
        "Software": f"meddiff {version('meddiff')}",
    }
    small = sweep.config.preset == "tiny" or set(manifest.sealed()["source"]) <= {"phantom"}
    return render(ReportInput(run.shown, run.aggregated, found.pictures, trainings, facts, small, found.curves))


def _trainings(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """The keys of all trained runs by what the report calls them."""
    keys = {}
    for checkpoint in checkpoints:
        of = f" {checkpoint.short}" if len(checkpoints) > 1 else ""
        keys[f"Pre-training{of}"] = checkpoint.base
        keys |= {f"ControlNet{of}, {name}": key for name, key in checkpoint.controls.items()}
    return keys
