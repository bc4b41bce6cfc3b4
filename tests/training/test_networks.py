"""The networks: conditions reach the output, a fresh ControlNet changes nothing, the base stays locked."""

from dataclasses import replace

import pytest
import torch
from training_worlds import SMALL

from training.conditioning import Conditions, coordinates, stack_axes
from training.config import paper
from training.networks import ControlledNetwork, DiffusionNetwork, count_parameters


def random_network(seed=0):
    torch.manual_seed(seed)
    network = DiffusionNetwork(SMALL)
    with torch.no_grad():  # the output convolution starts at zero and would hide everything
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 1, 8, 8, 8, generator=generator)
    axes = stack_axes([coordinates((0, 8, 4), (1, 1, 1), (16, 16, 16), (8, 8, 8))] * 2)
    anatomy = torch.randint(0, 120, (2, 8, 8, 8), generator=generator)
    return x, torch.tensor([10, 900]), Conditions(torch.tensor([0, 1]), anatomy, axes)


@torch.no_grad()
def test_every_condition_changes_the_answer(inputs):
    network, (x, t, conditions) = random_network(), inputs
    answer = network(x, t, conditions)
    assert answer.shape == x.shape
    axis_z, axis_y, axis_x = conditions.coordinates_BN
    moved = replace(conditions, coordinates_BN=(axis_z.flip(1), axis_y, axis_x))
    for other in (conditions.without_region(), conditions.without_anatomy(), moved):
        assert not torch.allclose(network(x, t, other), answer)
    assert not torch.allclose(network(x, t + 50, conditions), answer)


@torch.no_grad()
def test_the_region_enters_both_as_context_and_as_class(inputs):
    x, t, conditions = inputs
    for silenced in ("encoder.region.weight", "unet.class_embedding.weight"):
        network = random_network()
        dict(network.named_parameters())[silenced].zero_()
        assert not torch.allclose(network(x, t, conditions.without_region()), network(x, t, conditions))


@torch.no_grad()
def test_a_fresh_controlled_network_answers_as_its_base(inputs):
    base, (x, t, conditions) = random_network(), inputs
    controlled = ControlledNetwork(base)
    assert torch.equal(controlled(x, t, conditions, torch.randn_like(x)), base(x, t, conditions))


def test_the_copy_starts_with_the_weights_of_the_base():
    base = random_network()
    control = ControlledNetwork(base).control.state_dict()
    for name, value in base.unet.state_dict().items():
        if name.startswith(("conv_in", "time_embed", "class_embedding", "down_blocks", "middle_block")):
            assert torch.equal(control[name], value), name


def test_only_the_copy_learns_and_the_control_reaches_the_answer(inputs):
    base, (x, t, conditions) = random_network(), inputs
    before = {name: value.clone() for name, value in base.state_dict().items()}
    network = ControlledNetwork(base).train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (network(x, t, conditions, x) - x).abs().mean().backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    with torch.no_grad():
        assert not torch.allclose(network(x, t, conditions, x), network(x, t, conditions, -x))
        assert not torch.allclose(network(x, t, conditions, x), network(x, t, conditions.without_anatomy(), x))


def test_a_control_in_the_wrong_place_is_refused(inputs):
    base, (x, t, conditions) = random_network(), inputs
    with pytest.raises(ValueError, match="takes no control"):
        base(x, t, conditions, x)
    with pytest.raises(ValueError, match="needs its control"):
        ControlledNetwork(base)(x, t, conditions)


def test_the_paper_preset_has_the_size_that_was_measured():
    with torch.device("meta"):
        assert count_parameters(DiffusionNetwork(paper().model)) == pytest.approx(10.9e6, rel=0.02)
