"""`make run`, whole: what the README promises of the demonstration."""

import json
import time

import pandas as pd
import pytest
from test_end_to_end import meddiff

TASKS = {"synthesis", "denoising", "anomaly", "superresolution", "lesion-generation", "lesion-inpainting"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demonstration, run twice in the same home: (home, first, second, seconds of the second)."""
    home = tmp_path_factory.mktemp("demo")
    first = meddiff("run", "--profile", "demo", home=home)
    assert first.returncode == 0, first.stderr[-3000:]
    start = time.monotonic()
    second = meddiff("run", "--profile", "demo", home=home)
    return home, first, second, time.monotonic() - start


@pytest.fixture(scope="module")
def table(demo) -> pd.DataFrame:
    """The tidy table of the sweep."""
    (path,) = (demo[0] / "lake" / "runs" / "evaluate").glob("*/table.parquet")
    return pd.read_parquet(path)


def test_it_ends_with_the_table_and_where_to_look(demo):
    said = demo[1].stdout
    for word in ("denoising", "superresolution", "report", "report.html", "MLflow", "Prefect"):
        assert word in said


def test_a_second_run_changes_nothing_and_says_so(demo):
    home, _, second, seconds = demo
    assert second.returncode == 0, second.stderr
    assert "would run" not in second.stdout
    assert second.stdout.count("unchanged") >= 5
    assert seconds < 30
    assert len(list((home / "lake" / "runs" / "evaluate").glob("*"))) == 1


def test_every_task_was_measured_beside_a_baseline_on_held_out_patients(demo, table):
    assert set(table["task"]) == TASKS
    assert not table[table["value"].isna()]["reason"].eq("").any()
    rows = {row["case"]: row for row in json.loads(meddiff("cases", "--json", home=demo[0]).stdout)}
    measured = set(table["case"]) - {""}
    assert measured
    assert {rows[case]["split"] for case in measured if case in rows} == {"test"}
    methods = table.groupby("task")["method"].nunique()
    assert (methods >= 2).all(), methods.to_dict()


def test_the_posterior_mean_gains_four_decibels_in_the_chest_without_labels(table):
    """σ = .15, in the body, against the noise-free reference, patients that training never saw."""
    chest = table[
        (table["task"] == "denoising")
        & (table["region"] == "chest")
        & table["setting"].str.contains("0.15")
        & (table["metric"] == "psnr_gain")
        & table["method"].str.contains("mean")
        & ~table["method"].str.contains("label")
    ]
    assert chest["patient"].nunique() >= 5
    assert chest["value"].mean() >= 4.0, chest["value"].describe().to_dict()


def test_the_loss_falls(demo):
    seals = [json.loads(path.read_text()) for path in (demo[0] / "lake" / "runs" / "pretrain").glob("*/seal.json")]
    (seal,) = seals
    validation = [entry["validation_loss"] for entry in seal["history"] if "validation_loss" in entry]
    assert validation[-1] < 0.7 * validation[0]
