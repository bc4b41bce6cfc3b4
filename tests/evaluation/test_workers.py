"""Cells measured by processes of their own: the same table, also where one of them is killed in the middle."""

import os
import signal
import threading
import time

import psutil
import pytest
from task_worlds import MODEL, RECIPE, small_config, store_case

from evaluation.config import Checkpoint
from evaluation.results import finished_sweep, read_seal
from evaluation.sweep import evaluate
from infra.lake import open_lake
from preprocessing.manifest import commit
from training.config import PretrainConfig, TrainConfig
from training.launch import pretrain
from training.runs import run_exists

pytestmark = pytest.mark.slow

CONFIG = small_config().replace(tasks=("denoising", "synthesis"), seeds=(0, 1), threads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A lake of nine patients with a model trained for a step, and what one process measures in it."""
    lake = open_lake(str(tmp_path_factory.mktemp("sweep") / "lake"))
    splits = ("train", "train", "train", "train", "val", "val", "test", "test", "test")
    rows = [store_case(lake, number, split, lesion=number % 2 == 0) for number, split in enumerate(splits)]
    commit(lake, RECIPE, {"made-up": [row.model_copy(update={"split": ""}) for row in rows]})
    train = TrainConfig(iterations=1, batch_size=1, accumulate=1, validation_samples=0, picture_every=0)
    run = pretrain(lake, RECIPE, PretrainConfig(preset="tiny", model=MODEL, train=train))
    checkpoints = (Checkpoint(base=run.key),)
    return lake, checkpoints, evaluate(lake, RECIPE, CONFIG, checkpoints, track=False)


def forget_cells(lake, done):
    for key in read_seal(lake, done.key).cells:
        lake.delete(f"{key}/seal.json")
    lake.delete(f"{done.key}/seal.json")


def measured(lake, cells):
    return sum(run_exists(lake, key) for key in cells)


def test_two_workers_measure_what_one_process_measures(trained):
    lake, checkpoints, alone = trained
    forget_cells(lake, alone)
    told = []
    config = CONFIG.replace(workers=2)
    done = evaluate(lake, RECIPE, config, checkpoints, track=False, on_log=lambda *step: told.append(step))
    assert done.table.equals(alone.table)
    assert done.key == alone.key
    assert [step[:2] for step in told] == [(n, 8) for n in (0, *range(1, 9), 8)]


def test_a_worker_that_is_killed_costs_nothing_but_time(trained):
    lake, checkpoints, alone = trained
    cells = read_seal(lake, alone.key).cells
    forget_cells(lake, alone)
    killed = []

    def kill_one():
        while not killed and measured(lake, cells) == 0:
            time.sleep(0.01)
        workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
        os.kill(workers[-1].pid, signal.SIGKILL)
        killed.append(measured(lake, cells))

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = evaluate(lake, RECIPE, CONFIG.replace(workers=2), checkpoints, track=False)
    killer.join()
    assert 0 < killed[0] < 8
    assert done.table.equals(alone.table)
    assert finished_sweep(lake, done.key) is not None
