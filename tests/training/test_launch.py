"""Launch: pre-train, do it again for nothing, fine-tune both tasks on it, load what came out."""

from dataclasses import replace

import pytest
import torch
from training_worlds import RECIPE, copy_data, make_lake

from infra.errors import UserError
from infra.spent import read_spent
from preprocessing.manifest import read_manifest
from training.conditioning import Conditions, coordinates, stack_axes
from training.config import FinetuneConfig
from training.launch import finetune, pretrain
from training.loading import load_network
from training.networks import ControlledNetwork, DiffusionNetwork
from training.precision import default_device
from training.runs import finetune_key, pace_of_steps, pretrain_key, read_run


@pytest.fixture(scope="module")
def inputs():
    x = torch.randn(1, 1, 8, 8, 8)
    axes = stack_axes([coordinates((0, 0, 0), (1, 1, 1), (8, 8, 8), (8, 8, 8))])
    return x, torch.tensor([500]), Conditions(torch.tensor([1]), torch.zeros(1, 8, 8, 8, dtype=torch.uint8), axes)


def finetuning(config, task, **changes):
    return FinetuneConfig(preset="test", task=task, train=config.train.replace(iterations=3), factor=2, **changes)


def test_a_run_is_trained_once_and_sealed(tiny_lake, config):
    run = pretrain(tiny_lake, RECIPE, config)
    assert not run.unchanged
    assert run.key == pretrain_key(read_manifest(tiny_lake, RECIPE).fingerprint, config)
    seal = read_run(tiny_lake, run.key)
    assert (seal.step, seal.stage, seal.base) == (6, "pretrain", "")
    assert seal.manifest == read_manifest(tiny_lake, RECIPE).fingerprint
    assert {"loss", "val/loss"} <= run.metrics.keys()
    calls = []
    again = pretrain(tiny_lake, RECIPE, config, on_log=lambda *a: calls.append(a))
    assert again.unchanged
    assert replace(again, unchanged=False) == run
    assert not calls


def test_the_pace_of_its_steps_is_noted(tiny_lake, config):
    pretrain(tiny_lake, RECIPE, config.replace(train=config.train.replace(log_every=2, seed=1)))
    spent = read_spent(tiny_lake, "steps", pace_of_steps(config, config.model))
    assert (spent.count, spent.device) == (4, default_device().type)  # of six steps, two warmed up
    assert 0 < spent.seconds / spent.count < 60


def test_the_loaded_network_has_the_averaged_weights(tiny_lake, config, inputs):
    run = pretrain(tiny_lake, RECIPE, config)
    network, model, extra = load_network(tiny_lake, run.key)
    assert isinstance(network, DiffusionNetwork)
    assert not network.training
    assert model == config.model
    assert extra["step"] == 6
    data = tiny_lake.local_path(read_run(tiny_lake, run.key).checkpoint)
    average = torch.load(data, weights_only=True)["state"]["average"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, average[f"module.{name}"])
    assert network(*inputs).isfinite().all()


def test_the_same_command_after_a_kill_gives_the_same_weights(tiny_lake, config, tmp_path):
    def kill(step, values):
        if step == 4:
            raise KeyboardInterrupt

    whole = pretrain(tiny_lake, RECIPE, config)
    lake = copy_data(tiny_lake, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        pretrain(lake, RECIPE, config, on_log=kill)
    resumed = pretrain(lake, RECIPE, config)
    assert resumed.metrics == whole.metrics
    assert resumed.history == whole.history
    one, other = load_network(tiny_lake, whole.key)[0], load_network(lake, resumed.key)[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("task", ["lesion", "superresolution"])
def test_a_control_is_learned_on_a_locked_base(tiny_lake, config, inputs, task):
    base = pretrain(tiny_lake, RECIPE, config)
    tuning = finetuning(config, task)
    run = finetune(tiny_lake, RECIPE, tuning, base)
    assert run.key == finetune_key(read_manifest(tiny_lake, RECIPE).fingerprint, tuning, base.key)
    assert finetune(tiny_lake, RECIPE, tuning, base.key).unchanged
    network, _, extra = load_network(tiny_lake, run.key)
    assert isinstance(network, ControlledNetwork)
    assert extra["config"]["task"] == task
    assert extra["base"] == base.key
    locked = load_network(tiny_lake, base.key)[0].state_dict()
    assert all(torch.equal(value, locked[name]) for name, value in network.base.state_dict().items())
    x, t, conditions = inputs
    assert not torch.equal(network(x, t, conditions, x), network.base(x, t, conditions))


def test_from_scratch_trains_the_base_as_well(tiny_lake, config):
    base = pretrain(tiny_lake, RECIPE, config)
    run = finetune(tiny_lake, RECIPE, finetuning(config, "lesion", from_scratch=True), base)
    network, pretrained = load_network(tiny_lake, run.key)[0], load_network(tiny_lake, base.key)[0]
    pairs = zip(network.base.parameters(), pretrained.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.numel() > 100)


def test_what_cannot_be_trained_is_named(tiny_lake, config, tmp_path):
    healthy = make_lake(tmp_path / "healthy", lesion=lambda i: False)
    base = pretrain(tiny_lake, RECIPE, config)
    tuned = finetune(tiny_lake, RECIPE, finetuning(config, "superresolution"), base)
    with pytest.raises(UserError, match="itself a fine-tuned run"):
        finetune(tiny_lake, RECIPE, finetuning(config, "lesion"), tuned)
    with pytest.raises(UserError, match="no finished run"):
        finetune(healthy, RECIPE, finetuning(config, "lesion"), "runs/pretrain/none")
    short = config.replace(train=config.train.replace(iterations=1, validation_samples=2))
    with pytest.raises(UserError, match=r"train split .* lesion mask"):
        finetune(healthy, RECIPE, finetuning(config, "lesion"), pretrain(healthy, RECIPE, short))


def test_a_damaged_result_is_told_in_a_sentence(tiny_lake, tmp_path, config):
    lake = copy_data(tiny_lake, tmp_path)
    run = pretrain(lake, RECIPE, config.replace(train=config.train.replace(iterations=1, validation_samples=2)))
    lake.local_path(read_run(lake, run.key).checkpoint).write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged or gone"):
        load_network(lake, run.key)
