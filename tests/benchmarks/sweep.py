"""What a sweep costs beside its measurements: cells whose task takes no time, kept in the lake and told to MLflow.

MLflow stands once on SQLite, as for one person, and once as a server on Postgres, as for a team; both are real.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from team_mlflow import team_mlflow

from benchmarks.measure import median_seconds, timed
from benchmarks.small_phantoms import MODEL, RECIPE, TRAIN
from evaluation.config import Checkpoint, EvaluateConfig
from evaluation.publish import publish
from evaluation.results import EvaluationRun, read_seal
from evaluation.sweep import evaluate
from evaluation.tasks.context import TaskContext, TaskResult
from infra.lake import Lake, open_lake
from infra.settings import Settings
from preprocessing.ingest import ingest
from preprocessing.sources.phantom import PhantomSource
from training.config import PretrainConfig
from training.launch import pretrain

REAL_CTS = False
TITLE = "sweep: milliseconds a cell beside what is measured, and of opening its parent in MLflow"
CELLS, QUICK_CELLS, PATIENTS, METRICS = 500, 6, 8, 20
TASKS = ("denoising", "synthesis")


def run(quick: bool = False) -> list[dict]:
    """A row for the lake, and one for each way of keeping MLflow's runs."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as name:
        folder = Path(name)
        lake = open_lake(str(folder / "lake"))
        ingest(lake, RECIPE, [PhantomSource(patients=PATIENTS, resolution="tiny", dose_pairs=False)])
        train = TRAIN.replace(iterations=1, batch_size=1)
        base = pretrain(lake, RECIPE, PretrainConfig(preset="bench-sweep", model=MODEL, train=train)).key
        seeds = tuple(range((QUICK_CELLS if quick else CELLS) // len(TASKS)))
        config = EvaluateConfig(preset="bench", tasks=TASKS, regions=("abdomen",), seeds=seeds, segmenter=None)
        measured, done = timed(lambda: sweep(lake, config, base))
        cells = len(read_seal(lake, done.key).cells)
        again, _ = timed(lambda: sweep(lake, config.replace(preset="again"), base))
        rows = [row("lake: measured", cells, measured, None), row("lake: measured before", cells, again, None)]
        rows.append(told(lake, done, cells, "MLflow on SQLite", Settings(home=folder / "one", tracking_uri="")))
        with team_mlflow(folder) as address:
            server = Settings(home=folder / "team", tracking_uri=address)
            rows.append(told(lake, done, cells, "MLflow on Postgres", server))
        return rows


def sweep(lake: Lake, config: EvaluateConfig, base: str) -> EvaluationRun:
    """All cells, none of which takes any time."""
    return evaluate(lake, RECIPE, config, (Checkpoint(base=base),), track=False, run=no_work)


def no_work(name: str, context: TaskContext) -> TaskResult:
    """Twenty metrics of one patient."""
    where = {"checkpoint": context.checkpoint, "task": name, "region": "abdomen", "seed": context.seed, "dataset": "x"}
    case = {"method": "ours", "case": "c", "patient": "p", "unit": "1", "value": 0.5}
    return TaskResult([{**where, **case, "metric": f"metric {index}"} for index in range(METRICS)])


def told(lake: Lake, done: EvaluationRun, cells: int, where: str, settings: Settings) -> dict:
    """The time of telling MLflow, and that of finding the parent with its first hundred children, as its page does."""
    seconds, parent = timed(lambda: publish(lake, done, settings))
    return row(where, cells, seconds, median_seconds(page(parent, settings), 5))


def page(parent: str, settings: Settings) -> Callable[[], object]:
    """What MLflow's page asks for when a parent is opened."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri)

    def opened() -> object:
        found = client.get_run(parent)
        rule = f"tags.mlflow.parentRunId = '{parent}'"
        children = client.search_runs([found.info.experiment_id], rule, max_results=100)
        return client.list_artifacts(parent), children

    return opened


def row(where: str, cells: int, seconds: float, opened_s: float | None) -> dict:
    """What the table shows of one place."""
    ms = None if opened_s is None else opened_s * 1e3
    return {"where": where, "cells": cells, "s": seconds, "ms_a_cell": seconds / cells * 1e3, "parent_opens_ms": ms}
