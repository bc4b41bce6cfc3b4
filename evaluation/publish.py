"""A sweep in MLflow: one parent with the table, pictures and report, and one child per cell.

Children carry the parent's key parameters, so that they can be compared across sweeps. The data version is an input of
the parent and, where a checkpoint was registered, so is its model. A sweep is told once: if MLflow has a finished run
of its fingerprint, nothing is sent.
"""

import re

import pandas as pd

from evaluation.results import EvaluationRun, read_seal
from evaluation.table import cell_means, to_parquet
from evaluation.verdict import summary
from infra.lake import Lake
from infra.settings import Settings
from infra.tracking import DataVersion, TrackedRun, find_run, tracked_run

EXPERIMENT = "evaluate"
CELL = ["checkpoint", "task", "region", "seed"]


def publish(lake: Lake, run: EvaluationRun, settings: Settings | None = None) -> str:
    """Tells MLflow of a finished sweep.

    Returns:
        The parent run's id; "" if no server took it (a warning says what is missing).
    """
    if known := find_run(EXPERIMENT, run.fingerprint, settings):
        return known
    seal = read_seal(lake, run.key)
    preset = str(seal.config.get("preset", ""))
    links = {"base": seal.base, "data_fingerprint": seal.manifest, "recipe": seal.recipe, "preset": preset}
    controls = {f"control.{name}": key for name, key in seal.controls.items()}
    with tracked_run(
        EXPERIMENT,
        f"sweep {preset}",
        params={**seal.config, **links, **controls, "evaluations": seal.evaluations},
        tags={"url": lake.url_of(run.key)},
        dataset=DataVersion(name="ct", fingerprint=seal.manifest, url=lake.url),
        context="evaluation",
        fingerprint=run.fingerprint,
        settings=settings,
    ) as parent:
        for checkpoint in seal.checkpoints:
            for name, key in checkpoint.models.items():
                parent.log_model_input(key.rsplit("/", 1)[-1], name)
        _send_files(lake, run, parent)
        parent.log_metrics(metric_values(summary(run.aggregated), with_place=True))
        for place, rows in cell_means(run.table).groupby(CELL, sort=False):
            checkpoint, task, region, seed = map(str, place)
            of = next((one for one in seal.checkpoints if one.name == checkpoint), seal.checkpoints[0])
            params = {"task": task, "region": region, "seed": seed, **links, "base": of.base}
            name = " ".join(filter(None, (task, region, f"seed {seed}" if seed != "0" else "")))
            name += f" @{of.short}" if seal.others else ""
            parent.log_child(name, params=params, metrics=metric_values(rows, with_setting=True))
    return parent.run_id


def _send_files(lake: Lake, run: EvaluationRun, parent: TrackedRun) -> None:
    parent.log_table(run.aggregated, "tables/aggregated.json")
    parent.log_file(to_parquet(run.table), "tables/cases.parquet")
    parent.log_file(lake.read(f"{run.key}/report.html"), "report.html")
    for key in lake.list(f"{run.key}/pictures"):
        parent.log_file(lake.read(key), f"pictures/{key.rsplit('/', 1)[-1]}")


def metric_values(
    aggregated: pd.DataFrame, *, with_place: bool = False, with_setting: bool = False
) -> dict[str, float]:
    """Means by MLflow metric name: metric/reference/region/method, with task and setting in front if asked."""
    values = {}
    for _, row in aggregated[aggregated["mean"].notna()].iterrows():
        against = re.search(r"against (\w+)", row["unit"])
        parts = [row["metric"], f"vs {against[1]}" if against else "", row["region"], row["method"]]
        parts = [row["setting"], *parts] if with_place or with_setting else parts
        parts = [row["task"], *parts] if with_place else parts
        values["/".join(metric_name(part) for part in parts if part)] = float(row["mean"])
    return values


def metric_name(text: str) -> str:
    """Text with only what MLflow takes in a metric's name."""
    return re.sub(r"[^\w.\- ]+", "-", text, flags=re.ASCII).strip("-")
