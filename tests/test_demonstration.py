"""The demonstration, as `make run` runs it, in a state folder of its own: what it leaves, what it claims, and again."""

import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from evaluation.champion import read_champion
from evaluation.config import TASKS
from evaluation.results import finished_sweep
from evaluation.verdict import kind
from flows.profiles import demo
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.manifest import read_manifest
from training.runs import read_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STAGES = [
    "ingest phantom",
    "pretrain",
    "finetune superresolution",
    "finetune lesion",
    "segmenter",
    "evaluate",
    "promote",
]
LEAST_GAIN_DB = 4


class Demonstration(NamedTuple):
    """A state folder in which the demonstration has run, what it printed, how long it took, and its results' keys."""

    home: object
    printed: str
    seconds: float
    keys: dict

    @property
    def lake(self):
        return open_lake(str(self.home / "lake"))

    @property
    def table(self):
        return finished_sweep(self.lake, self.keys["evaluate"]).table


def meddiff(home, *arguments):
    """The command in a process of its own, with the threads that `make run` leaves it."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"MEDDIFF_HOME": str(home), "MEDDIFF_LAKE": "", "MLFLOW_TRACKING_URI": ""}
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=1700)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def plan(home):
    return json.loads(meddiff(home, "plan", "--profile", "demo", "--json"))


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    home, start = tmp_path_factory.mktemp("demonstration"), time.monotonic()
    printed = meddiff(home, "run", "--profile", "demo")
    seconds = time.monotonic() - start
    return Demonstration(home, printed, seconds, {stage["stage"]: stage["key"] for stage in plan(home)})


def test_it_ends_with_the_table_and_where_to_look(demonstration):
    assert all(task in demonstration.printed for task in TASKS)
    for place in ("report.html", "mlflow", "prefect"):
        assert place in demonstration.printed.lower()


def test_a_second_run_finds_every_stage_unchanged_and_touches_nothing(demonstration):
    def files():
        return {path: path.stat().st_mtime_ns for path in (demonstration.home / "lake").rglob("*") if path.is_file()}

    before, start = files(), time.monotonic()
    printed = meddiff(demonstration.home, "run", "--profile", "demo")
    assert time.monotonic() - start < demonstration.seconds / 4
    assert files() == before
    assert "would run" not in printed
    assert [(stage["stage"], stage["status"]) for stage in plan(demonstration.home)] == [
        (name, "unchanged") for name in STAGES
    ]


def test_the_model_removes_noise_from_patients_it_never_saw(demonstration):
    """σ = .15, chest window, posterior mean, in the body, against the noise-free image, anatomy unknown."""
    rows = demonstration.table.query(
        "task == 'denoising' and region == 'chest' and setting == 'sigma=0.15' and method == 'ours-mean'"
        " and metric == 'psnr_gain' and unit == 'dB (against noise_free)'"
    )
    manifest = read_manifest(demonstration.lake, demo().full_recipe)
    assert set(rows["patient"]) <= set(manifest.sealed(split="test")["patient"])
    assert rows["patient"].nunique() >= demo().min_test
    assert rows["value"].mean() >= LEAST_GAIN_DB


def test_the_loss_falls(demonstration):
    history = pd.DataFrame(read_run(demonstration.lake, demonstration.keys["pretrain"]).history)
    train, held_out = history["loss"].dropna(), history["val/loss"].dropna()
    assert train.tail(4).mean() < 0.5 * train.iloc[0]
    assert held_out.iloc[-1] < held_out.iloc[0]


def test_every_task_is_measured_beside_a_baseline(demonstration):
    measured = demonstration.table[demonstration.table["value"].notna()]
    assert set(measured["task"]) == set(TASKS)
    for task, rows in measured.groupby("task"):
        assert {"ours", "baseline"} <= set(rows["method"].map(kind)), task


def test_every_number_is_finite_or_has_a_reason(demonstration):
    table = demonstration.table
    assert np.isfinite(table["value"].dropna()).all()
    assert (table.loc[table["value"].isna(), "reason"] != "").all()
    assert (table["patients"] > 0)[table["value"].notna()].all()


def test_the_segmenter_finds_organs_in_held_out_images(demonstration):
    rows = demonstration.table[demonstration.table["metric"].str.startswith("dice_anatomy[segmenter ")]
    found = rows.groupby(["region", "method"])["value"].mean().unstack()
    assert (found["real"] > 0.35).all()


def test_the_report_shows_every_task(demonstration):
    lake, key = demonstration.lake, demonstration.keys["evaluate"]
    drawn = {name.rpartition("/")[2] for name in lake.list(f"{key}/pictures")}
    assert {f"{task}-00.png" for task in TASKS} <= drawn
    assert lake.read(f"{key}/report.html").decode().count("data:image/png;base64") >= len(drawn)


@pytest.fixture(scope="module")
def runs(demonstration):
    """experiment -> its MLflow runs."""
    from mlflow import MlflowClient

    client = MlflowClient(Settings(home=demonstration.home, tracking_uri="").mlflow_uri)
    names = ("pretrain", "finetune", "segmenter", "evaluate")
    found = {name: client.search_runs([client.get_experiment_by_name(name).experiment_id]) for name in names}
    return client, found


def test_mlflow_has_each_training_with_curve_parameters_data_and_model(demonstration, runs):
    client, found = runs
    fingerprint = read_manifest(demonstration.lake, demo().full_recipe).fingerprint
    trainings = [*found["pretrain"], *found["finetune"], *found["segmenter"]]
    assert [len(found[name]) for name in ("pretrain", "finetune", "segmenter")] == [1, 2, 1]
    for run in trainings:
        assert run.info.status == "FINISHED"
        assert int(run.data.params["train.batch_size"]) == 2
        assert [data.dataset.digest for data in run.inputs.dataset_inputs] == [fingerprint]
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
        assert len(steps) >= 3
        assert steps[-1] == int(run.data.params["train.iterations"])
    models = {model.name for model in client.search_registered_models()}
    assert models == {"meddiff-fm", "meddiff-fm-superresolution", "meddiff-fm-lesion", "meddiff-fm-segmenter"}


def test_the_first_checkpoint_is_the_champion_and_says_why(demonstration, runs):
    client, _ = runs
    champion = read_champion(demonstration.lake)
    assert champion.checkpoint.base == demonstration.keys["pretrain"]
    for name in ("meddiff-fm", "meddiff-fm-superresolution", "meddiff-fm-lesion"):
        version = client.get_model_version_by_alias(name, "champion")
        assert version.tags["meddiff.champion"] == champion.reason
    assert champion.reason.startswith("there was no champion")


def test_mlflow_has_the_sweep_as_one_parent_with_a_child_per_cell(demonstration, runs):
    client, found = runs
    (parent,) = [run for run in found["evaluate"] if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found["evaluate"] if run != parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.params["task"] for run in children} == set(TASKS)
    assert "report.html" in {item.path for item in client.list_artifacts(parent.info.run_id)}
    gain = parent.data.metrics["denoising/sigma-0.15/psnr_gain/vs noise_free/chest/ours-mean"]
    assert gain >= LEAST_GAIN_DB
