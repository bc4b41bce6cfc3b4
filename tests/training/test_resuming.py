"""Whatever ends a training, the same command goes on and ends with the bits of a run that nothing ended."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_worlds import RECIPE, copy_data, make_lake

from infra.errors import UserError
from training.checkpoint import Checkpoints
from training.launch import pretrain
from training.loading import load_network

HERE = Path(__file__).parent


def in_a_process(lake, config, shoot_at=0, number=0):
    """Train in a process of its own, which gets a signal when it tells of a step."""
    command = [sys.executable, HERE / "training_process.py", lake.url, config.model_dump_json(), shoot_at, int(number)]
    paths = [str(HERE), str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "preprocessing")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "2"}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=200)


def weights(lake, key):
    return torch.cat([p.flatten() for p in load_network(lake, key)[0].parameters()])


def the_run(lake):
    [key] = {key.rpartition("/step-")[0] for key in lake.list("runs/pretrain") if "/step-" in key}
    return key


@pytest.fixture(scope="module")
def ended(tiny_lake, tmp_path_factory):
    """ranks -> a lake with the finished run that nothing stopped, and its key."""
    made = {}

    def run(config, ranks):
        if ranks not in made:
            lake = copy_data(tiny_lake, tmp_path_factory.mktemp("ended"))
            done = in_a_process(lake, config)
            assert done.returncode == 0, done.stderr
            made[ranks] = lake, the_run(lake)
        return made[ranks]

    return run


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_training_goes_on(tiny_lake, tmp_path, config, ended, ranks, number):
    config = config.replace(train=config.train.replace(ranks=ranks))
    lake = copy_data(tiny_lake, tmp_path)
    killed = in_a_process(lake, config, shoot_at=3, number=number)
    assert killed.returncode == -number or (ranks == 2 and killed.returncode), killed.stderr
    assert 2 <= max(Checkpoints(lake, the_run(lake), "").steps()) < 6
    assert in_a_process(lake, config).returncode == 0
    whole, key = ended(config, ranks)
    assert the_run(lake) == key
    assert torch.equal(weights(lake, key), weights(whole, key))


def test_sigterm_keeps_the_step_that_it_fell_into(tiny_lake, tmp_path, config):
    lake = copy_data(tiny_lake, tmp_path)
    late = config.replace(train=config.train.replace(checkpoint_every=100, log_every=1))
    assert in_a_process(lake, late, shoot_at=5, number=signal.SIGTERM).returncode == -signal.SIGTERM
    assert Checkpoints(lake, the_run(lake), "").steps() == [5]


def test_the_way_of_reading_and_the_cadence_of_saving_are_no_other_run(tiny_lake, tmp_path, config):
    lake = copy_data(tiny_lake, tmp_path)
    run = pretrain(lake, RECIPE, config)
    other = config.replace(train=config.train.replace(workers=2, checkpoint_every=1, keep_checkpoints=1))
    assert pretrain(lake, RECIPE, other).unchanged
    elsewhere = copy_data(tiny_lake, tmp_path / "elsewhere")
    read_by_processes = pretrain(elsewhere, RECIPE, other)
    assert read_by_processes.key == run.key
    assert torch.equal(weights(lake, run.key), weights(elsewhere, run.key))
    assert len(Checkpoints(elsewhere, run.key, "").steps()) == 1


class StoppedError(Exception):
    """Stands for a kill."""


def stop_at_four(step, values):
    if step == 4:
        raise StoppedError


def test_a_run_that_stopped_on_other_data_is_not_left_behind_silently(tmp_path, config):
    lake = make_lake(tmp_path / "lake", cases=10)
    with pytest.raises(StoppedError):
        pretrain(lake, RECIPE, config, on_log=stop_at_four)
    begun = the_run(lake)
    make_lake(tmp_path / "lake", cases=20)
    with pytest.raises(UserError, match=rf"stopped after step 2 of 6 .* start from {begun} .* or from 'scratch'"):
        pretrain(lake, RECIPE, config)
    went_on = pretrain(lake, RECIPE, config, start_from=begun)
    anew = pretrain(lake, RECIPE, config, start_from="scratch")
    assert len({begun, went_on.key, anew.key}) == 3
    assert [record["step"] for record in went_on.history] == [2, 3, 4, 6]
    assert not torch.equal(weights(lake, went_on.key), weights(lake, anew.key))
    assert pretrain(lake, RECIPE, config) == replace(anew, unchanged=True)


def test_steps_are_gone_on_from_only_where_they_fit(tmp_path, config):
    lake = make_lake(tmp_path / "lake", cases=10)
    done = pretrain(lake, RECIPE, config)
    longer = config.replace(train=config.train.replace(iterations=8))
    with pytest.raises(UserError, match="holds no checkpoint to go on from"):
        pretrain(lake, RECIPE, longer, start_from="runs/pretrain/none")
    with pytest.raises(UserError, match="has 6 steps already"):
        pretrain(lake, RECIPE, config.replace(preset="again"), start_from=done.key)
    wider = longer.replace(model=config.model.replace(channels=(8, 24)))
    with pytest.raises(UserError, match="was trained with another model"):
        pretrain(lake, RECIPE, wider, start_from=done.key)
    more = pretrain(lake, RECIPE, longer, start_from=done.key)
    assert [record["step"] for record in more.history] == [2, 3, 4, 6, 8]
