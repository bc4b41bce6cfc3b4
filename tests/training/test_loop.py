"""The loop: it learns, goes on exactly where it stopped, and names the cases of a loss that is not finite."""

from dataclasses import replace

import pytest
import torch
from training_worlds import RECIPE, SMALL

from infra.errors import UserError
from preprocessing.manifest import read_manifest
from preprocessing.store import open_case
from training.checkpoint import Checkpoints
from training.data import CropSampler, region_volumes
from training.diffusion import Schedule
from training.loop import start, train
from training.networks import DiffusionNetwork
from training.objectives import NoiseObjective

CPU = torch.device("cpu")


def make_objective(lake, config):
    manifest = read_manifest(lake, RECIPE)
    samplers = [
        CropSampler(region_volumes(manifest, split), lambda key: open_case(lake, key), 8, config)
        for split in ("train", "val")
    ]
    return NoiseObjective(*samplers, config, Schedule())


def make_network(seed=0):
    torch.manual_seed(seed)
    return DiffusionNetwork(SMALL)


def run(lake, key, config, on_log=None, objective=None, network=None):
    objective = objective or make_objective(lake, config)
    checkpoints = Checkpoints(lake, key, "f" * 32)
    return train(start(network or make_network(), config), objective, config, checkpoints, CPU, on_log=on_log)


def test_the_curve_is_told_and_validation_is_split_by_region_and_level(tiny_lake, config):
    told = {}
    training = run(tiny_lake, "runs/test/curve", config.train, lambda step, values: told.update({step: dict(values)}))
    assert sorted(told) == [2, 3, 4, 6]
    assert {"loss", "grad_norm", "learning_rate"} <= told[2].keys()
    assert "loss" not in told[3]
    assert {"val/loss", "val/chest", "val/patch", "val/abdomen/wide"} <= told[3].keys()
    assert [record["step"] for record in training.history] == [2, 3, 4, 6]


def test_it_warms_up(tiny_lake, config):
    rates = {}
    short = config.train.replace(iterations=4, warmup=4, log_every=1, validation_samples=0)
    run(tiny_lake, "runs/test/warm", short, lambda step, values: rates.update({step: values["learning_rate"]}))
    assert [rates[step] / short.learning_rate for step in (1, 2, 3, 4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_it_learns(tiny_lake, config):
    longer = config.train.replace(iterations=40, log_every=10, validate_every=20, batch_size=4, validation_samples=12)
    history = run(tiny_lake, "runs/test/learn", longer).history
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]
    assert history[-1]["val/loss"] < 0.8  # the mean of |ε| that a network saying 0 would get


class StoppedError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("stop_at", [3, 4, 6])
def test_a_resumed_run_ends_with_the_bits_of_one_that_never_stopped(tiny_lake, config, stop_at):
    def kill(step, values):
        if step == stop_at:
            raise StoppedError

    whole = run(tiny_lake, f"runs/test/whole-{stop_at}", config.train)
    with pytest.raises(StoppedError):
        run(tiny_lake, f"runs/test/parts-{stop_at}", config.train, kill)
    resumed = run(tiny_lake, f"runs/test/parts-{stop_at}", config.train, network=make_network(seed=7))
    assert resumed.history == whole.history
    for kind in ("network", "average"):
        one, other = whole.state()[kind], resumed.state()[kind]
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_average_follows_and_is_not_the_last_weights(tiny_lake, config):
    training = run(tiny_lake, "runs/test/average", config.train)
    pairs = list(zip(training.average.module.parameters(), training.network.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in pairs)
    distance = sum(float((a - b).detach().abs().sum()) for a, b in pairs)
    moved = sum(
        float((a - b).detach().abs().sum())
        for a, b in zip(make_network().parameters(), training.network.parameters(), strict=True)
    )
    assert distance < moved


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_sample(tiny_lake, config):
    objective = make_objective(tiny_lake, config.train)

    class Poisoned(NoiseObjective):
        def batch(self, step, micro):
            batch = super().batch(step, micro)
            poison = torch.tensor([1.0, float("nan")]).reshape(2, 1, 1, 1, 1)
            return replace(batch, x0_B1ZYX=batch.x0_B1ZYX * poison) if step == 3 else batch

    poisoned = Poisoned(objective.train, objective.validate, config.train, Schedule())
    with pytest.raises(
        UserError, match=r"loss of step 4 is not finite, on: test/case-\d \((chest|abdomen)\) \w+ at [^;]*\(nan\); look"
    ):
        run(tiny_lake, "runs/test/poisoned", config.train, objective=poisoned)
    assert Checkpoints(tiny_lake, "runs/test/poisoned", "f" * 32).steps() == [2]


def test_accumulated_micro_batches_give_the_step_of_the_whole_batch(tiny_lake, config):
    short = config.train.replace(iterations=1, validation_samples=0)
    whole = run(tiny_lake, "runs/test/one-batch", short.replace(batch_size=4, accumulate=1))
    parts = run(tiny_lake, "runs/test/two-batches", short.replace(batch_size=2, accumulate=2))
    assert parts.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-4)
    assert parts.history[0]["grad_norm"] == pytest.approx(whole.history[0]["grad_norm"], rel=1e-3)
