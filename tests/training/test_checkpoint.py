"""Checkpoints: whole or not there, checked by digest, the last few kept, never code."""

import json
import logging

import pytest
import torch

from infra.errors import UserError
from infra.lake import Lake, open_lake
from training.checkpoint import Checkpoints

KEY = "runs/test/checkpoints"


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(open_lake(str(tmp_path)), KEY, "a" * 32)


def test_the_last_ones_are_kept_and_the_newest_is_read(checkpoints):
    for step in (10, 20, 30):
        checkpoints.save(step, {"weights": torch.full((3,), float(step)), "note": "x", "numbers": [1.5]})
    assert checkpoints.steps() == [20, 30]
    assert [key.rpartition("/")[2] for key in checkpoints.lake.list(KEY)] == [
        "step-00000020.json",
        "step-00000020.pt",
        "step-00000030.json",
        "step-00000030.pt",
    ]
    step, state = checkpoints.latest()
    assert step == 30
    assert state["weights"].tolist() == [30.0] * 3


def test_no_checkpoint_is_no_error(checkpoints):
    assert checkpoints.latest() is None


def test_a_truncated_checkpoint_is_passed_over(checkpoints, caplog):
    for step in (10, 20):
        checkpoints.save(step, {"step": step})
    path = checkpoints.lake.local_path(checkpoints.path(20))
    path.write_bytes(path.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest() == (10, {"step": 10})
    assert "step-00000020.pt is damaged" in caplog.text


def test_a_checkpoint_without_its_note_was_not_finished(checkpoints):
    checkpoints.save(10, {"step": 10})
    checkpoints.lake.write(checkpoints.path(20), b"half")
    assert checkpoints.latest() == (10, {"step": 10})


def test_a_checkpoint_of_another_run_is_refused(checkpoints):
    checkpoints.save(10, {})
    with pytest.raises(UserError, match="belongs to another run"):
        Checkpoints(checkpoints.lake, KEY, "b" * 32).latest()


def test_a_newer_format_is_refused_by_name(checkpoints, monkeypatch):
    monkeypatch.setattr("training.checkpoint.FORMAT", 2)
    checkpoints.save(10, {})
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 2"):
        checkpoints.latest()


def test_a_full_disk_is_told_in_a_sentence(checkpoints, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Lake, "write", full)
    with pytest.raises(UserError, match=r"step 10 cannot be written.*No space left"):
        checkpoints.save(10, {})


def test_code_is_never_loaded(checkpoints, caplog):
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    checkpoints.save(10, {"trap": Trap()})
    assert json.loads(checkpoints.lake.read(checkpoints.path(10, "json")))["step"] == 10
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoints.latest()
