"""The pipeline, whole and real but short: a small phantom, a few iterations, all six tasks; then again, unchanged."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

TASKS = {"synthesis", "denoising", "anomaly", "superresolution", "lesion-generation", "lesion-inpainting"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPT = """
from flows.session import flows_here, open_session
from flows.params import SourceSpec
from flows.profiles import Profile
from flows.plan import plan
from infra.lake import open_lake
from training.config import tiny, tiny_finetune

short = {"iterations": 4, "warmup": 1, "validate_every": 2, "checkpoint_every": 2, "batch_size": 2, "log_every": 1}
settings = open_session()
lake = open_lake(settings.lake_url)
profile = Profile(
    name="short", lake=lake.url, min_validation=1, min_test=2,
    sources=(SourceSpec(name="phantom", options={"patients": 30, "resolution": "tiny", "seed": 0}),),
    pretrain=tiny().replace(train=tiny().train.replace(**short)),
    finetune=tuple(
        c.replace(train=c.train.replace(**short)) for c in map(tiny_finetune, ("superresolution", "lesion"))
    ),
)
if not all(stage.unchanged for stage in plan(lake, profile)):
    with flows_here(settings):
        from flows.pipeline import pipeline
        pipeline(profile)
print([stage.status for stage in plan(lake, profile)])
"""


def run(home):
    """The short pipeline in a process of its own."""
    environment = {**os.environ, "MEDDIFF_HOME": str(home), "MEDDIFF_LAKE": "", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False, timeout=1500
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A state folder in which the short pipeline has run."""
    place = tmp_path_factory.mktemp("pipeline")
    done = run(place)
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def test_every_task_is_measured_beside_another_method(home):
    (path,) = (home / "lake" / "runs" / "evaluate").glob("*/table.parquet")
    table = pd.read_parquet(path)
    assert set(table["task"]) == TASKS
    nameless = table[table["value"].isna() & (table["reason"] == "")]
    assert nameless.empty
    assert (table.groupby("task")["method"].nunique() >= 2).all()
    assert table.loc[table["method"].str.startswith("ours"), "value"].notna().any()


def test_results_are_sealed_and_the_report_holds_pictures(home):
    for stage, runs in (("pretrain", 1), ("finetune", 2), ("evaluate", 1)):
        seals = list((home / "lake" / "runs" / stage).glob("*/seal.json"))
        assert len(seals) == runs
        assert all(json.loads(seal.read_text())["format"] == 1 for seal in seals)
    (report,) = (home / "lake" / "runs" / "evaluate").glob("*/report.html")
    assert "data:image/png;base64" in report.read_text()


def test_a_second_run_finds_every_stage_unchanged(home):
    before = {path: path.stat().st_mtime_ns for path in (home / "lake").rglob("*") if path.is_file()}
    again = run(home)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "would run" not in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (home / "lake").rglob("*") if path.is_file()}
