"""A sweep with tasks and models of the test's own: what it writes, what it repeats, and what it tells MLflow."""

import dataclasses
import json
import logging
import os

import numpy as np
import pytest
import torch
from report_example import Panel, Picture
from torch import nn

from evaluation import measure, sweep
from evaluation.cells import read_cell_seal
from evaluation.config import Checkpoint, EvaluateConfig, used_segmenter_key
from evaluation.publish import metric_name, metric_values
from evaluation.results import finished_sweep, read_seal
from evaluation.sweep import evaluate
from evaluation.table import aggregate, from_parquet, validate
from evaluation.tasks.context import TaskResult
from evaluation.verdict import kind
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.manifest import ManifestRow, commit, read_manifest
from preprocessing.recipe import demo
from preprocessing.regions import WINDOWS
from training import launch
from training.config import tiny, tiny_segmenter
from training.runs import TrainedRun, seal_key

BASE = f"runs/pretrain/{'b' * 32}"
CONTROLS = {"lesion": f"runs/finetune/{'c' * 32}"}
CHECKPOINT = Checkpoint(base=BASE, controls=CONTROLS)
CONFIG = EvaluateConfig(preset="tiny", tasks=("denoising", "anomaly"), regions=("abdomen",), segmenter=None)
SEGMENTED = CONFIG.replace(tasks=("denoising", "synthesis", "lesion-generation"), segmenter=tiny_segmenter())
UNTRAINED = tiny_segmenter().replace(train=tiny_segmenter().train.replace(iterations=7))


@pytest.fixture
def lake(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    rows = [
        ManifestRow(source="phantom", case=f"c{i}", patient=f"p{i}", status="sealed", seal=f"{i}", regions=("abdomen",))
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
    monkeypatch.setattr(measure, "load_network", load)
    monkeypatch.setattr(sweep, "finished_run", lambda lake, key: trained)


def fake_task(name, context):
    """Two patients, two methods; each task draws one picture and evaluates the network twice."""
    row = {
        "checkpoint": context.checkpoint,
        "task": name,
        "dataset": "phantom",
        "region": "abdomen",
        "metric": "psnr",
        "seed": context.seed,
    }
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


def run(lake, settings=None, task=fake_task, checkpoints=(CHECKPOINT,), config=CONFIG, **more):
    return evaluate(lake, demo(), config, checkpoints, settings=settings, run=task, **{"track": False, **more})


def test_a_sweep_writes_table_pictures_report_and_its_seal_last(lake, monkeypatch):
    written = []
    write = type(lake).write
    monkeypatch.setattr(type(lake), "write", lambda self, key, data: (written.append(key), write(self, key, data))[1])
    done = run(lake)
    cells = read_seal(lake, done.key).cells
    files = ("rows.parquet", "curves.json", "pictures/00.npz", "seal.json")
    noted = [key for key in written if key.startswith("costs/cells/")]
    assert len(noted) == len(cells) == 2
    written = [key for key in written if key not in noted]
    assert written[:8] == [f"{cell}/{name}" for cell in cells for name in files]
    assert [key.removeprefix(f"{done.key}/") for key in written[8:]] == [
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


def test_models_and_cells_of_a_sweep_are_in_use_from_its_beginning(lake):
    """`meddiff gc` leaves what is young; what a sweep is made of may be old."""
    cells = read_seal(lake, run(lake).key).cells
    models = list(CHECKPOINT.models.values())
    for key in models:
        lake.write(seal_key(key), b"{}")
    for key in (*cells, *models):
        os.utime(lake.local_path(seal_key(key)), (0, 0))

    def seen(name, context):
        ages = {one.key: one.modified.year for one in lake.objects("runs")}
        assert all(ages[seal_key(key)] > 1970 for key in (*cells, *models))
        return fake_task(name, context)

    run(lake, task=seen, config=CONFIG.replace(seeds=(0, 1)))


@pytest.mark.parametrize("change", ["config", "controls", "data"])
def test_another_config_model_or_manifest_is_another_sweep(lake, change):
    first = run(lake)
    if change == "data":
        commit(lake, demo(), {"more": [ManifestRow(source="more", case="x", patient="x", status="sealed", seal="s")]})
    config = CONFIG.replace(seeds=(1,)) if change == "config" else CONFIG
    controls = {} if change == "controls" else CONTROLS
    checkpoints = (Checkpoint(base=BASE, controls=controls),)
    assert run(lake, config=config, checkpoints=checkpoints).key != first.key


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
    assert "not sealed, because anomaly abdomen failed" in caplog.text
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

    with pytest.raises(UserError, match=r"nothing could be measured: denoising: no case; anomaly: no case"):
        run(lake, task=task)


def test_no_test_case_is_an_error_before_any_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "load_network", lambda lake, key: pytest.fail("loaded"))
    with pytest.raises(UserError, match="no test case of recipe 'demo'"):
        run(open_lake(str(tmp_path / "empty")))


@pytest.mark.parametrize("lost", ["base", "control"])
def test_a_checkpoint_that_cannot_be_loaded_is_named_and_the_others_are_measured(lake, lost):
    gone = "runs/finetune/gone"
    bad = Checkpoint(base=gone) if lost == "base" else Checkpoint(base=BASE, controls={"lesion": gone})
    config = CONFIG.replace(tasks=("denoising", "lesion-generation"))
    done = run(lake, checkpoints=(CHECKPOINT, bad), config=config)
    reasons = set(done.table.loc[done.table["value"].isna(), "reason"])
    assert len(reasons) == 1
    assert "the checkpoint gone is damaged" in reasons.pop()
    assert done.table.loc[done.table["checkpoint"] == CHECKPOINT.name, "value"].notna().any()
    assert finished_sweep(lake, done.key) is None


def measured_by(lake, **more):
    """Which cells a sweep measures: pairs of task and regions, with its result."""
    asked = []

    def task(name, context):
        asked.append((name, *context.config.regions, context.seed, context.checkpoint[0]))
        return fake_task(name, context)

    return asked, run(lake, task=task, **more)


def test_a_larger_sweep_measures_only_what_no_sweep_has_measured(lake):
    run(lake)
    more = CONFIG.replace(tasks=("denoising", "anomaly", "synthesis"), seeds=(0, 1), workers=1, preset="another")
    asked, done = measured_by(lake, config=more)
    assert asked == [("denoising", "abdomen", 1, "b"), ("anomaly", "abdomen", 1, "b")] + [
        ("synthesis", "abdomen", seed, "b") for seed in (0, 1)
    ]
    assert len(read_seal(lake, done.key).cells) == 6
    assert set(done.table["seed"]) == {0, 1}


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ({"denoising": CONFIG.denoising.replace(lam=3.0)}, {"denoising"}),
        ({"lesion_generation": CONFIG.lesion_generation.replace(steps=3)}, set()),
        ({"synthesis": CONFIG.synthesis.replace(steps=3), "workers": 1}, set()),
        ({"overlap": 0.25}, {"denoising", "anomaly"}),
        ({"datasets": ("phantom",)}, {"denoising", "anomaly"}),
    ],
)
def test_a_changed_setting_measures_the_tasks_that_it_is_of(lake, change, measured):
    run(lake)
    asked, _ = measured_by(lake, config=CONFIG.replace(**change))
    assert {name for name, *_ in asked} == measured


def test_another_controlnet_measures_the_tasks_that_use_it(lake):
    config = CONFIG.replace(tasks=("denoising", "superresolution", "lesion-generation", "lesion-inpainting"))
    run(lake, config=config)
    other = Checkpoint(base=BASE, controls={"lesion": "runs/finetune/other"})
    asked, _ = measured_by(lake, config=config, checkpoints=(other,))
    assert [name for name, *_ in asked] == ["lesion-generation", "lesion-inpainting"]


@pytest.fixture
def _segmenters(monkeypatch):
    """Segmenters are trained at once and opened by their key; that of 7 steps cannot be trained."""

    def train(lake, recipe, config, **_):
        if config.train.iterations == 7:
            raise UserError("the val split of this data has no case")

    def opened(lake, key):
        if key.endswith(
            used_segmenter_key(SEGMENTED.replace(segmenter=UNTRAINED), read_manifest(lake, demo()).fingerprint)
        ):
            raise UserError("there is no segmenter")

    monkeypatch.setattr(launch, "train_segmenter", train)
    monkeypatch.setattr(measure, "open_segmenter", opened)


@pytest.mark.usefixtures("_segmenters")
def test_another_segmenter_measures_the_tasks_that_it_reads(lake):
    run(lake, config=SEGMENTED)
    asked, _ = measured_by(lake, config=SEGMENTED.replace(segmenter=tiny_segmenter().replace(noise=0.05)))
    assert [name for name, *_ in asked] == ["synthesis", "lesion-generation"]


@pytest.mark.usefixtures("_segmenters")
def test_a_sweep_whose_segmenter_cannot_be_trained_says_so_and_measures_the_rest(lake):
    done = run(lake, config=SEGMENTED.replace(segmenter=UNTRAINED))
    reasons = done.table.loc[done.table["value"].isna()]
    assert set(reasons["task"]) == {"synthesis", "lesion-generation"}
    assert set(reasons["reason"]) == {"the segmenter is left out: there is no segmenter"}
    assert done.table.loc[done.table["value"].notna(), "task"].nunique() == 3
    assert finished_sweep(lake, done.key) is None


def test_new_cases_of_a_region_measure_that_region_only(lake):
    config = CONFIG.replace(tasks=("denoising",), regions=("chest", "abdomen"))
    _add_case(lake, "chest")
    run(lake, config=config)
    _add_case(lake, "chest", "more")
    asked, done = measured_by(lake, config=config)
    assert asked == [("denoising", "chest", 0, "b")]
    assert not done.unchanged


def _add_case(lake, region, source="first"):
    row = ManifestRow(source=source, case="x", patient="x", status="sealed", seal="s", regions=(region,))
    commit(lake, demo(), {source: [row]})


def test_a_sweep_that_was_stopped_goes_on_with_the_first_cell_that_is_not_measured(lake):
    def task(name, context):
        if name == "anomaly":
            raise KeyboardInterrupt
        return fake_task(name, context)

    with pytest.raises(KeyboardInterrupt):
        run(lake, task=task)
    asked, done = measured_by(lake)
    assert [name for name, *_ in asked] == ["anomaly"]
    assert done.table.equals(run(lake).table)


def test_a_damaged_cell_is_named_and_the_others_are_shown(lake):
    done = run(lake)
    cell = next(key for key in read_seal(lake, done.key).cells if read_cell_seal(lake, key).cell.task == "anomaly")
    lake.write(f"{cell}/rows.parquet", lake.read(f"{cell}/rows.parquet")[:-1] + b"x")
    lake.delete(f"{done.key}/seal.json")
    again = run(lake)
    (row,) = again.table[again.table["task"] == "anomaly"].to_dict("records")
    assert "are not those that were sealed" in row["reason"]
    assert finished_sweep(lake, done.key) is None


def test_checkpoints_stand_side_by_side_and_what_does_not_depend_on_them_stands_once(lake):
    def task(name, context):
        rows = fake_task(name, context).rows
        other = context.checkpoint != CHECKPOINT.name
        return TaskResult([row | {"value": row["value"] + other * row["method"].startswith("ours")} for row in rows])

    other = Checkpoint(base=f"runs/pretrain/{'d' * 32}")
    done = run(lake, task=task, checkpoints=(CHECKPOINT, other), config=CONFIG.replace(tasks=("denoising",)))
    assert set(done.table["checkpoint"]) == {CHECKPOINT.name, other.name}
    assert set(done.table["method"]) == {"ours-mean", "tv"}
    means = done.aggregated[done.aggregated["setting"] == "sigma=0.05"].set_index("method")["mean"].to_dict()
    assert means == {"ours-mean@bbbbbbbb": 31, "ours-mean@dddddddd": 32, "tv": 29}
    assert kind("ours-mean@bbbbbbbb") == "ours"
    assert read_seal(lake, done.key).checkpoints == (CHECKPOINT, other)


def test_progress_names_the_task_and_its_network_evaluations(lake):
    log = []
    run(lake, on_log=lambda done, total, note: log.append((done, total, note)))
    assert log[0] == (0, 2, "denoising abdomen")
    assert (0, 2, "denoising abdomen, 2 network evaluations") in log
    assert log[-1] == (2, 2, "report")


def test_two_equal_sweeps_give_equal_bytes(lake, tmp_path):
    first = lake.read(f"{run(lake).key}/table.parquet")
    lake.delete(f"{run(lake).key}/seal.json")
    assert lake.read(f"{run(lake).key}/table.parquet") == first


def test_equal_sweeps_are_equal_to_the_bit_however_many_threads_the_process_used_before(lake, monkeypatch):
    """As after an ingest or a training in the same process, which leave other thread counts behind."""
    torch.manual_seed(0)
    network = nn.Conv3d(48, 16, 3, padding=1).requires_grad_(False)
    monkeypatch.setattr(measure, "load_network", lambda lake, key: (network, tiny().model, {}))
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


def test_mlflow_has_one_parent_with_everything_and_a_child_per_cell(lake, settings):
    done = run(lake, settings, track=True)
    run(lake, settings, track=True)
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("evaluate").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(child.info.run_name for child in children) == [
        "anomaly abdomen",
        "denoising abdomen",
    ]
    seal = read_seal(lake, done.key)
    assert {child.data.params["data_fingerprint"] for child in children} == {seal.manifest}
    assert {child.data.params["base"] for child in children} == {BASE}
    assert children[0].data.metrics == {
        f"sigma-{sigma}/psnr/vs noise_free/abdomen/{method}": value
        for sigma in (0.05, 0.15)
        for method, value in (("ours-mean", 31), ("tv", 29))
    }
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
