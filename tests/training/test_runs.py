"""Runs: equal data and config mean the same key, and whether one is finished is known without torch."""

import os
import subprocess
import sys

import pytest

from infra.errors import UserError
from infra.lake import open_lake
from training.config import tiny, tiny_finetune
from training.runs import (
    RunSeal,
    RunStart,
    finetune_key,
    finished_run,
    note_start,
    pretrain_key,
    read_run,
    run_exists,
    seal_key,
    start_key,
    take_run,
)

DATA = "d" * 32


def make_seal(**changes):
    values = {
        "stage": "pretrain",
        "run": "f" * 32,
        "manifest": DATA,
        "config": tiny().model_dump(mode="json"),
        "model": tiny().model,
        "step": 280,
        "checkpoint": "runs/pretrain/f/step-00000280.pt",
        "sha256": "0" * 64,
        "metrics": {"loss": 0.2},
        "history": ({"step": 280, "loss": 0.2},),
    }
    return RunSeal(**(values | changes))


def test_a_key_changes_with_data_config_and_base_only():
    key = pretrain_key(DATA, tiny())
    assert key == pretrain_key(DATA, tiny())
    assert key.startswith("runs/pretrain/")
    assert len(key.rpartition("/")[2]) == 32
    keys = {
        key,
        pretrain_key("e" * 32, tiny()),
        pretrain_key(DATA, tiny().replace(train=tiny().train.replace(seed=1))),
        finetune_key(DATA, tiny_finetune("lesion"), key),
        finetune_key(DATA, tiny_finetune("superresolution"), key),
        finetune_key(DATA, tiny_finetune("lesion"), "runs/pretrain/other"),
    }
    assert len(keys) == 6


def test_a_run_is_finished_when_it_is_sealed(tmp_path):
    lake = open_lake(str(tmp_path))
    assert finished_run(lake, "runs/pretrain/f") is None
    with pytest.raises(UserError, match="no finished run"):
        read_run(lake, "runs/pretrain/f")
    lake.write(seal_key("runs/pretrain/f"), make_seal().model_dump_json().encode())
    assert run_exists(lake, "runs/pretrain/f")
    run = finished_run(lake, "runs/pretrain/f")
    assert run.unchanged
    assert run.metrics == {"loss": 0.2}
    assert run.history == ({"step": 280, "loss": 0.2},)


def test_a_run_that_begins_or_goes_on_says_that_it_and_its_base_are_in_use(tmp_path):
    lake = open_lake(str(tmp_path))
    base, key = "runs/pretrain/f", "runs/finetune/g"
    lake.write(seal_key(base), make_seal().model_dump_json().encode())
    start = RunStart(key=key, manifest=DATA, config={}, base=base)
    note_start(lake, start)
    noted = lake.read(start_key(key))
    for name in (seal_key(base), start_key(key)):
        os.utime(tmp_path / name, (0, 0))
    note_start(lake, start)
    assert lake.read(start_key(key)) == noted
    assert all(one.modified.year > 1970 for one in lake.objects("runs"))


def test_taking_a_run_makes_its_seal_new_and_never_makes_one(tmp_path):
    lake = open_lake(str(tmp_path))
    assert not take_run(lake, "runs/pretrain/f")
    assert lake.list("runs") == []
    lake.write(seal_key("runs/pretrain/f"), b"{}")
    os.utime(tmp_path / seal_key("runs/pretrain/f"), (0, 0))
    assert take_run(lake, "runs/pretrain/f")
    assert next(lake.objects("runs")).modified.year > 1970


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'{"format": 2}', "format 2"), (b"{", "cannot be read"), (b'{"format": 1}', "cannot be read")],
)
def test_a_seal_that_cannot_be_read_is_told_in_a_sentence(tmp_path, data, message):
    lake = open_lake(str(tmp_path))
    lake.write(seal_key("runs/pretrain/f"), data)
    with pytest.raises(UserError, match=message):
        finished_run(lake, "runs/pretrain/f")


def test_runs_are_known_without_torch():
    code = "import sys, training.runs, training.config; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
