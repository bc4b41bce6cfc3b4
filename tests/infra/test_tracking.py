"""MLflow runs against a real SQLite store, and what happens when no server answers."""

import json
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infra.config import Config
from infra.settings import Settings
from infra.tracking import (
    MODEL,
    DataVersion,
    aliased_fingerprints,
    find_run,
    finished_fingerprints,
    promote,
    registered_url,
    tracked_run,
)

DATA = DataVersion("demo", "0123456789abcdef0123456789abcdef", "/lake/manifests/demo/00000001.parquet")


class Inner(Config):
    channels: tuple[int, ...] = (16, 32)


class Outer(Config):
    preset: str = "tiny"
    inner: Inner = Inner()
    note: str = "n" * 7000


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("home"), tracking_uri="")


@pytest.fixture(scope="module")
def client(settings):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=settings.mlflow_uri, registry_uri=settings.mlflow_uri)


@pytest.fixture(scope="module")
def training(settings):
    """One training run with everything on it; its id."""
    with tracked_run("train", "tiny", params=Outer(), dataset=DATA, fingerprint="f" * 32, settings=settings) as run:
        for step in range(3):
            run.log_metrics({"loss": 1.0 / (step + 1), "gain_db": float(step)}, step)
        run.log_table(pd.DataFrame({"method": ["ours"], "mean": [31.0]}), "table.json")
        run.log_image(np.zeros((8, 9, 3), np.uint8), "pictures/denoising.png")
        run.log_file("<p>report</p>", "report.html")
        run.log_file(b"PAR1", "tables/cases.parquet")
        run.log_model(f"/lake/runs/pretrain/{'f' * 32}", step=3, params={"patch": 32}, alias="latest")
    return run.run_id


def test_importing_the_module_does_not_import_mlflow():
    code = "import sys, infra.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_metrics_form_curves_and_params_are_dotted_and_cut(client, training):
    run = client.get_run(training)
    assert run.info.status == "FINISHED"
    curve = client.get_metric_history(training, "loss")
    assert [(m.step, round(m.value, 3)) for m in curve] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    assert run.data.params["inner.channels"] == "[16, 32]"
    assert run.data.params["preset"] == "tiny"
    assert len(run.data.params["note"]) == 6000


def test_a_run_says_which_code_made_it(client, training):
    root = Path(__file__).parents[2]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    tags = client.get_run(training).data.tags
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["meddiff.version"] == version("meddiff")


def test_the_data_version_is_an_input_whose_digest_is_the_manifest_fingerprint(client, training):
    (used,) = client.get_run(training).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("demo", DATA.fingerprint)
    assert json.loads(used.dataset.source) == {"uri": DATA.url}
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}


def test_tables_pictures_text_and_bytes_are_files_of_the_run_under_home(client, training, settings):
    paths = {item.path for folder in ("", "pictures", "tables") for item in client.list_artifacts(training, folder)}
    assert {"table.json", "report.html", "pictures/denoising.png", "tables/cases.parquet"} <= paths
    assert [path.read_bytes() for path in settings.home.glob("mlartifacts/**/cases.parquet")] == [b"PAR1"]


def test_a_checkpoint_is_a_registered_model_with_an_alias_once_per_fingerprint(client, training, settings):
    version = client.get_model_version_by_alias("meddiff-fm", "latest")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert (version.run_id, model.tags["url"], model.params["patch"]) == (
        training,
        f"/lake/runs/pretrain/{'f' * 32}",
        "32",
    )
    with tracked_run("train", "again", settings=settings) as run:
        run.log_model("/elsewhere", fingerprint="f" * 32)
    assert len(client.search_model_versions("name = 'meddiff-fm'")) == 1


def test_promotion_moves_the_alias_and_writes_the_reason(client, training, settings, caplog):
    assert promote("f" * 32, reason="first of its kind", settings=settings) == 1
    version = client.get_model_version_by_alias("meddiff-fm", "champion")
    assert version.tags["meddiff.champion"] == "first of its kind"
    assert promote("0" * 32, reason="?", settings=settings) is None
    assert "no version" in caplog.text


def test_runs_that_an_alias_names_are_known_and_nothing_is_said_of_a_server_that_is_away(client, training, settings):
    with tracked_run("train", "unnamed", settings=settings) as run:
        run.log_model("/elsewhere", fingerprint="e" * 32)
        run.log_model("/a/control", fingerprint="d" * 32, name=f"{MODEL}-lesion", alias="ward")
    assert aliased_fingerprints(settings) == {"f" * 32, "d" * 32}
    assert aliased_fingerprints(Settings(home=settings.home / "new", tracking_uri="")) == frozenset()
    assert aliased_fingerprints(Settings(home=settings.home, tracking_uri="http://127.0.0.1:9")) is None


def test_a_checkpoint_is_an_input_of_the_run_that_judged_it(client, training, settings):
    with tracked_run("judge", "run", settings=settings) as run:
        run.log_model_input("f" * 32)
        run.log_model_input("0" * 32)
    (given,) = client.get_run(run.run_id).inputs.model_inputs
    assert client.get_logged_model(given.model_id).tags["url"] == f"/lake/runs/pretrain/{'f' * 32}"


def test_children_hang_on_their_parent(client, settings):
    with tracked_run("sweep", "tiny", settings=settings) as parent:
        for sigma in ("0.05", "0.15"):
            parent.log_child(f"denoising {sigma}", params={"sigma": sigma}, metrics={"psnr/ours": 30.0})
    experiment = client.get_experiment_by_name("sweep").experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.run_id}'")
    assert {child.data.params["sigma"] for child in children} == {"0.05", "0.15"}
    assert all(child.info.status == "FINISHED" and child.data.metrics == {"psnr/ours": 30.0} for child in children)


def test_an_interrupted_run_is_continued_and_a_finished_one_is_found(client, settings):
    def interrupted():
        with tracked_run("resume", "run", fingerprint="a" * 32, settings=settings) as run:
            run.log_metrics({"loss": 2.0}, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert find_run("resume", "a" * 32, settings) == ""
    with tracked_run("resume", "run", fingerprint="a" * 32, settings=settings) as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert [m.step for m in client.get_metric_history(run.run_id, "loss")] == [0, 1]
    assert find_run("resume", "a" * 32, settings) == run.run_id
    assert find_run("no such experiment", "a" * 32, settings) == ""


def test_a_failing_block_marks_the_run_failed_and_passes_its_error_on(client, settings):
    def failing():
        with tracked_run("fail", "run", settings=settings) as run:
            ids.append(run.run_id)
            run.log_metrics({"loss": 1.0})
            ids.append(run.run_id)
            raise ValueError("the work's own error")

    ids = []
    with pytest.raises(ValueError, match="own error"):
        failing()
    assert client.get_run(ids[-1]).info.status == "FAILED"


def test_what_the_server_refuses_is_named_and_the_rest_arrives(client, settings, caplog):
    with tracked_run("refusal", "run", params={"patch": 32}, settings=settings) as run:
        run.log_params({"patch": 64})
        run.log_metrics({"loss": 1.0})
    assert client.get_run(run.run_id).data.metrics == {"loss": 1.0}
    assert "refused parameters" in caplog.text
    (left,) = [json.loads(path.read_text()) for path in settings.home.glob("untracked/refusal-*.json")]
    assert left["missing"] == [{"what": "parameters", "patch": "64"}]


def test_a_dead_server_costs_seconds_and_the_numbers_are_written_beside(tmp_path, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
    settings = Settings(home=tmp_path, tracking_uri=uri)
    begun = time.monotonic()
    with tracked_run("train", "tiny", params={"patch": 32}, dataset=DATA, settings=settings) as run:
        for step in range(200):
            run.log_metrics({"loss": float(step)}, step)
    assert time.monotonic() - begun < 20
    assert find_run("train", "f" * 32, settings) == ""
    (path,) = tmp_path.glob("untracked/train-*.json")
    missing = json.loads(path.read_text())["missing"]
    assert [entry["loss"] for entry in missing if "loss" in entry] == [float(step) for step in range(200)]
    assert str(path) in caplog.text


def test_teams_on_one_server_have_experiments_models_and_champions_of_their_own(tmp_path):
    heads, knees = (Settings(home=tmp_path, tracking_uri="", team=team) for team in ("heads", "knees"))
    for settings in (heads, knees):
        own = f"{settings.team}-run".ljust(32, "0")
        with tracked_run("train", "tiny", fingerprint=own, settings=settings) as run:
            run.log_model(f"/lake/runs/pretrain/{own}", alias="newest")
        promote(own, reason="first", settings=settings)
    for settings in (heads, knees):
        own = f"{settings.team}-run".ljust(32, "0")
        assert find_run("train", own, settings)
        assert finished_fingerprints("train", settings) == [own]
        assert registered_url(MODEL, alias="champion", settings=settings).endswith(own)
    assert not find_run("train", "heads-run".ljust(32, "0"), knees)
    assert registered_url("knees-meddiff-fm", number="1", settings=knees).endswith("knees-run".ljust(32, "0"))
    assert aliased_fingerprints(heads) == {f"{team}-run".ljust(32, "0") for team in ("heads", "knees")}
