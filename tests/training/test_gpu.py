"""On a GPU: the network gives what it gives on a CPU, learns in bf16, compiles, and a stopped run goes on."""

import pytest
import torch
from test_loop import make_network, make_objective
from test_unet import inputs, randomised
from torch import nn
from training_worlds import RECIPE, SMALL

from training.checkpoint import Checkpoints
from training.launch import pretrain
from training.loading import load_network
from training.loop import start, train
from training.networks import DiffusionNetwork
from training.precision import autocast, place

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KINDS = ("keep", "recompute", "checkpoint")


@pytest.fixture(autouse=True)
def exact_float32():
    """Without TF32, so that float32 means what it means on a CPU."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def answer_and_gradients(network, device, precision="fp32"):
    """ε̂ and the gradient of a loss, both on the CPU."""
    x, t, conditions = inputs()
    x, t, conditions = x.to(device), t.to(device), conditions.to(device)
    with autocast(precision, torch.device(device)):
        answer = network(x, t, conditions)
    network.zero_grad()
    (answer - x).abs().mean().backward()
    return answer.detach().cpu(), torch.cat([p.grad.flatten().cpu() for p in network.parameters()])


def small_network(activations="recompute"):
    torch.manual_seed(0)
    network = randomised(DiffusionNetwork(SMALL))
    network.activations = activations
    return network


@pytest.mark.parametrize("activations", KINDS)
def test_values_and_gradients_are_those_of_the_cpu(activations):
    expected, expected_gradient = answer_and_gradients(small_network(activations), "cpu")
    answer, gradient = answer_and_gradients(small_network(activations).cuda(), "cuda")
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("activations", KINDS)
def test_a_step_in_bf16_points_where_one_in_fp32_points(activations):
    expected, expected_gradient = answer_and_gradients(small_network("keep").cuda(), "cuda")
    answer, gradient = answer_and_gradients(small_network(activations).cuda(), "cuda", "bf16")
    assert float((answer - expected).abs().mean() / expected.abs().mean()) < 0.03
    assert float(nn.functional.cosine_similarity(gradient, expected_gradient, dim=0)) > 0.99


@pytest.mark.parametrize("activations", ["keep", "checkpoint"])
def test_a_compiled_network_gives_the_same(activations):
    expected, expected_gradient = answer_and_gradients(small_network(activations).cuda(), "cuda")
    network = small_network(activations).cuda()
    network.compile(dynamic=False)
    answer, gradient = answer_and_gradients(network, "cuda")
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-4, rtol=1e-2)


def test_a_compiled_training_loses_what_one_that_is_not_does(tiny_lake, config):
    short = config.replace(train=config.train.replace(iterations=3, precision="fp32"))
    plain = pretrain(tiny_lake, RECIPE, short)
    compiled = pretrain(tiny_lake, RECIPE, short.replace(train=short.train.replace(compile=True)))
    assert compiled.metrics["val/loss"] == pytest.approx(plain.metrics["val/loss"], rel=1e-2)


def test_recomputing_takes_less_memory_than_keeping():
    taken = {}
    for activations in KINDS:
        network = small_network(activations).cuda()
        x, t, conditions = inputs(size=32)
        x, t, conditions = x.cuda(), t.cuda(), conditions.to("cuda")
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        with autocast("bf16", torch.device("cuda")):
            answer = network(x, t, conditions)
        taken[activations] = torch.cuda.memory_allocated() - before
        del answer, network
    assert taken["recompute"] < 0.6 * taken["keep"]
    assert taken["checkpoint"] < taken["recompute"]


class StoppedError(Exception):
    """Stands for a kill."""


def run(lake, key, config, on_log=None, seed=0):
    checkpoints = Checkpoints(lake, key, "f" * 32)
    training = start(place(make_network(seed), torch.device("cuda"), config.precision), config)
    return train(training, make_objective(lake, config), config, checkpoints, torch.device("cuda"), on_log)


def weights(training, kind):
    return torch.cat([value.flatten().float().cpu() for value in training.state()[kind].values()])


def test_a_resumed_run_ends_close_to_one_that_never_stopped(tiny_lake, config):
    def kill(step, values):
        if step == 4:
            raise StoppedError

    whole = run(tiny_lake, "runs/gpu/whole", config.train)
    with pytest.raises(StoppedError):
        run(tiny_lake, "runs/gpu/parts", config.train, kill)
    resumed = run(tiny_lake, "runs/gpu/parts", config.train, seed=7)
    moved = (weights(whole, "network") - weights(start(make_network(), config.train), "network")).abs().mean()
    for kind in ("network", "average"):
        assert float((weights(resumed, kind) - weights(whole, kind)).abs().mean()) < 0.02 * float(moved)


def test_the_average_stays_on_the_gpu_and_lags_behind(tiny_lake, config):
    training = run(tiny_lake, "runs/gpu/average", config.train)
    assert {p.device.type for p in training.average.parameters()} == {"cuda"}
    first = weights(start(make_network(), config.train), "network")
    last, average = (
        weights(training, "network"),
        torch.cat([p.detach().flatten().float().cpu() for p in training.average.module.state_dict().values()]),
    )
    assert 0 < float((average - last).norm()) < float((first - last).norm())


def test_pre_training_by_the_launcher_uses_the_gpu_and_can_be_loaded_on_a_cpu(tiny_lake, recipe, config):
    torch.cuda.reset_peak_memory_stats()
    done = pretrain(tiny_lake, recipe, config)
    assert torch.cuda.max_memory_allocated() > 1e6
    network, _, _ = load_network(tiny_lake, done.key)
    answer, _ = answer_and_gradients(network.requires_grad_(True), "cpu")
    assert answer.isfinite().all()
