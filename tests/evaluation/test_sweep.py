"""A sweep with tasks and models of the test's own: what it writes, what it repeats, and what it tells MLflow."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from report_example import Panel, Picture
from torch import nn

from evaluation import sweep
from evaluation.config import EvaluateConfig
from evaluation.publish import metric_name, metric_values
from evaluation.results import finished_sweep, read_seal
from evaluation.sweep import evaluate
from evaluation.table import aggregate, from_parquet, validate
from evaluation.tasks.context import TaskResult
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.manifest import ManifestRow, commit
from preprocessing.recipe import demo
from preprocessing.regions import WINDOWS
from training.config import tiny
from training.runs import TrainedRun

BASE = f"runs/pretrain/{'b' * 32}"
CONTROLS = {"lesion": f"runs/finetune/{'c' * 32}"}
CONFIG = EvaluateConfig(preset="tiny", tasks=("denoising", "anomaly"))


@pytest.fixture
def lake(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    rows = [
        ManifestRow(source="phantom", case=f"c{i}", patient=f"p{i}", status="sealed", seal=f"{i}", regions=("chest",))
        for i in range(12)
    ]
    commit(lake, demo(), {"phantom": rows})
    return lake


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", tracking_uri="")


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    def load(lake, key):
        if key == "runs/finetune/gone":
            raise UserError("the checkpoint gone is damaged")
        return nn.Identity(), tiny().model, {}

    history = ({"step": 10.0, "loss": 0.9}, {"step": 20.0, "loss": 0.5})
    trained = TrainedRun(stage="pretrain", fingerprint="b" * 32, key=BASE, history=history)
    monkeypatch.setattr(sweep, "load_network", load)
    monkeypatch.setattr(sweep, "finished_run", lambda lake, key: trained)


def fake_task(name, context):
    """Two patients, two methods; each task draws one picture and evaluates the network twice."""
    row = {"checkpoint": context.checkpoint, "task": name, "dataset": "phantom", "region": "chest", "metric": "psnr"}
    row |= {"unit": "dB (range 1800 HU, against noise_free)"}
    rows = [
        {**row, "setting": setting, "method": method, "case": patient, "patient": patient, "value": value}
        for setting in ("sigma=0.05", "sigma=0.15")
        for method, value in (("ours-mean", 31.0), ("tv", 29.0))
        for patient in ("p1", "p2")
    ]
    context._count()
    context._count()
    hu = np.random.default_rng(0).normal(-500, 200, (6, 8, 8))
    return TaskResult(rows, [Picture(f"{name} p1", [Panel("noisy", hu, WINDOWS["chest"])])])


def run(lake, settings=None, task=fake_task, controls=CONTROLS, config=CONFIG, **more):
    return evaluate(lake, demo(), config, BASE, controls, settings=settings, run=task, **{"track": False, **more})


def test_a_sweep_writes_table_pictures_report_and_its_seal_last(lake, monkeypatch):
    written = []
    write = type(lake).write
    monkeypatch.setattr(type(lake), "write", lambda self, key, data: (written.append(key), write(self, key, data))[1])
    done = run(lake)
    assert [key.removeprefix(f"{done.key}/") for key in written] == [
        "table.parquet",
        "pictures/denoising-00.png",
        "pictures/anomaly-00.png",
        "report.html",
        "seal.json",
    ]
    assert from_parquet(lake.read(f"{done.key}/table.parquet")).equals(done.table)
    seal = read_seal(lake, done.key)
    assert (seal.base, seal.controls, seal.evaluations) == (BASE, CONTROLS, 4)
    assert done.key == f"runs/evaluate/{seal.run}"
    assert set(done.table["checkpoint"]) == {"b" * 32}


def test_an_unchanged_sweep_is_read_and_not_measured_again(lake):
    first = run(lake)
    again = run(lake, task=lambda name, context: pytest.fail("measured again"))
    assert (again.unchanged, first.unchanged) == (True, False)
    assert again.table.equals(first.table)
    assert again.key == first.key


@pytest.mark.parametrize("change", ["config", "controls", "data"])
def test_another_config_model_or_manifest_is_another_sweep(lake, change):
    first = run(lake)
    if change == "data":
        commit(lake, demo(), {"more": [ManifestRow(source="more", case="x", patient="x", status="sealed", seal="s")]})
    config = CONFIG.replace(seed=1) if change == "config" else CONFIG
    controls = {} if change == "controls" else CONTROLS
    assert run(lake, config=config, controls=controls).key != first.key


def test_a_task_that_cannot_be_measured_is_a_row_with_its_reason_and_the_rest_completes(lake):
    def task(name, context):
        if name == "anomaly":
            raise UserError("no held-out case has a liver")
        return fake_task(name, context)

    done = run(lake, task=task)
    (failed,) = done.table[done.table["task"] == "anomaly"].to_dict("records")
    assert failed["reason"] == "no held-out case has a liver"
    assert done.table["value"].notna().sum() == 8
    assert b"no held-out case has a liver" in lake.read(f"{done.key}/report.html")
    assert finished_sweep(lake, done.key) is not None


def test_a_task_that_breaks_leaves_the_sweep_unsealed_so_that_it_is_tried_again(lake, caplog):
    def task(name, context):
        if name == "anomaly":
            raise RuntimeError("out of memory")
        return fake_task(name, context)

    broken = run(lake, task=task)
    assert "RuntimeError: out of memory" in set(broken.table["reason"]).pop() + "".join(broken.table["reason"])
    assert "not sealed, because anomaly failed" in caplog.text
    assert finished_sweep(lake, broken.key) is None
    repeated = run(lake)
    assert (repeated.key, repeated.unchanged) == (broken.key, False)
    assert repeated.table["value"].notna().all()


def test_rows_that_are_no_rows_are_named(lake):
    done = run(lake, task=lambda name, context: TaskResult([{"task": name, "metric": "psnr"}], []) if name == "anomaly"
               else fake_task(name, context))  # fmt: skip
    assert done.table["reason"].str.contains("needs a reason").any()


def test_nothing_measured_at_all_ends_with_the_reasons(lake):
    def task(name, context):
        raise UserError(f"{name}: no case")

    with pytest.raises(UserError, match=r"no task could be measured: denoising: no case; anomaly: no case"):
        run(lake, task=task)


def test_no_test_case_is_an_error_before_any_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "load_network", lambda lake, key: pytest.fail("loaded"))
    with pytest.raises(UserError, match="no test case of recipe 'demo'"):
        run(open_lake(str(tmp_path / "empty")))


def test_a_controlnet_that_cannot_be_loaded_is_left_out_with_a_warning(lake, caplog):
    seen = []
    run(
        lake,
        controls={"lesion": "runs/finetune/gone"},
        task=lambda n, c: (seen.append(dict(c.controls)), fake_task(n, c))[1],
    )
    assert seen == [{}, {}]
    assert "ControlNet for lesion is left out: the checkpoint gone is damaged" in caplog.text


def test_progress_names_the_task_and_its_network_evaluations(lake):
    log = []
    run(lake, on_log=lambda done, total, note: log.append((done, total, note)))
    assert log[0] == (0, 2, "denoising")
    assert (0, 2, "denoising, 2 network evaluations") in log
    assert log[-1] == (2, 2, "report")


def test_two_equal_sweeps_give_equal_bytes(lake, tmp_path):
    first = lake.read(f"{run(lake).key}/table.parquet")
    lake.delete(f"{run(lake).key}/seal.json")
    assert lake.read(f"{run(lake).key}/table.parquet") == first


def test_equal_sweeps_are_equal_to_the_bit_however_many_threads_the_process_used_before(lake, monkeypatch):
    """As after an ingest or a training in the same process, which leave other thread counts behind."""
    torch.manual_seed(0)
    network = nn.Conv3d(48, 16, 3, padding=1).requires_grad_(False)
    monkeypatch.setattr(sweep, "load_network", lambda lake, key: (network, tiny().model, {}))
    noise = torch.randn(2, 48, 16, 16, 16)
    used = []

    def task(name, context):
        used.append(torch.get_num_threads())
        row = {"task": name, "method": "ours", "metric": "rmse", "unit": "HU"}
        return TaskResult([row | {"value": float(context.base(noise).pow(2).mean())}])

    tables, before = [], torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        done = run(lake, task=task, config=CONFIG.replace(threads=2))
        tables.append(lake.read(f"{done.key}/table.parquet"))
        assert torch.get_num_threads() == threads
        lake.delete(f"{done.key}/seal.json")
    torch.set_num_threads(before)
    assert set(used) == {2}
    assert tables[0] == tables[1]


def test_a_newer_or_damaged_seal_is_refused_by_name(lake):
    done = run(lake)
    seal = json.loads(lake.read(f"{done.key}/seal.json"))
    lake.write(f"{done.key}/seal.json", json.dumps(seal | {"format": 2}).encode())
    with pytest.raises(UserError, match="format 2"):
        finished_sweep(lake, done.key)
    lake.write(f"{done.key}/seal.json", b"{}")
    with pytest.raises(UserError, match="cannot be read"):
        finished_sweep(lake, done.key)
    with pytest.raises(UserError, match="no finished sweep"):
        read_seal(lake, "runs/evaluate/none")


def test_mlflow_has_one_parent_with_everything_and_a_child_per_task_and_setting(lake, settings):
    done = run(lake, settings, track=True)
    run(lake, settings, track=True)
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("evaluate").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(child.info.run_name for child in children) == [
        "anomaly sigma=0.05",
        "anomaly sigma=0.15",
        "denoising sigma=0.05",
        "denoising sigma=0.15",
    ]
    seal = read_seal(lake, done.key)
    assert {child.data.params["data_fingerprint"] for child in children} == {seal.manifest}
    assert {child.data.params["base"] for child in children} == {BASE}
    assert children[0].data.metrics == {"psnr/vs noise_free/chest/ours-mean": 31, "psnr/vs noise_free/chest/tv": 29}
    assert parent.inputs.dataset_inputs[0].dataset.digest == seal.manifest
    assert parent.data.params["denoising.restore_sigma"] == "0.15"
    files = {
        item.path for folder in ("", "tables", "pictures") for item in client.list_artifacts(parent.info.run_id, folder)
    }
    assert {"report.html", "tables/aggregated.json", "tables/cases.parquet", "pictures/denoising-00.png"} <= files


def test_a_sweep_is_sealed_though_no_mlflow_answers(lake, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    done = run(lake, Settings(home=tmp_path / "home", tracking_uri="http://127.0.0.1:9"), track=True)
    assert finished_sweep(lake, done.key) is not None
    assert list((tmp_path / "home" / "untracked").glob("evaluate-*.json"))


def test_metric_names_are_what_mlflow_takes():
    assert metric_name("kid[random-conv3d-seed0]") == "kid-random-conv3d-seed0"
    assert metric_name("σ=0.15 ×2") == "0.15 -2"
    base = {
        "task": "synthesis",
        "region": "chest",
        "setting": "image",
        "method": "ours",
        "metric": "kid[x]",
        "value": 0.5,
    }
    lines = aggregate(validate([base, {**base, "metric": "fid[x]", "value": None, "reason": "too few"}]))
    assert metric_values(lines) == {"kid-x/chest/ours": 0.5}
    assert metric_values(lines, with_place=True) == {"synthesis/image/kid-x/chest/ours": 0.5}


def test_an_evaluation_run_aggregates_once(lake):
    done = run(lake)
    assert done.aggregated is done.aggregated
    assert dataclasses.replace(done, unchanged=True).aggregated.equals(done.aggregated)
