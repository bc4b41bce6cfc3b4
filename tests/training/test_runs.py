"""Runs: equal data and config mean the same key, and whether one is finished is known without torch."""

import subprocess
import sys

import pytest

from infra.errors import UserError
from infra.lake import open_lake
from training.config import tiny, tiny_finetune
from training.runs import (
    RunSeal,
    finetune_key,
    finished_run,
    pretrain_key,
    read_run,
    run_exists,
    seal_key,
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
