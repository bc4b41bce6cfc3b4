"""The U-Net as it is evaluated here gives what MONAI's own `forward` gives, and the same gradients."""

import pytest
import torch
from coordinate_grid import coordinate_grid
from torch import nn
from torch.nn import functional
from training_worlds import SMALL

from training.conditioning import Conditions, coordinates, encode_axes, encode_position, stack_axes
from training.config import ModelConfig
from training.networks import ControlledNetwork, DiffusionNetwork
from training.norm_convolution import norm_convolution
from training.position_convolution import position_convolution
from training.unet import convolve_enlarged

CLOSE = {"atol": 2e-5, "rtol": 2e-4}
KINDS = ("keep", "recompute", "checkpoint")


def randomised(network, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():  # zero convolutions would hide what comes before them
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def inputs(size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1, size, size, size, generator=generator)
    places = [((0, 8, 4), (1, 1, 2)), ((1, 2, 0), (1, 1, 1))]
    axes = stack_axes([coordinates(start, step, (16, 24, 20), (size,) * 3) for start, step in places])
    anatomy = torch.randint(0, 120, (2, size, size, size), generator=generator)
    return x, torch.tensor([10, 900]), Conditions(torch.tensor([0, 1]), anatomy, axes)


def all_channels(encoder, x, conditions):
    channels = [x, encoder.anatomy(conditions.anatomy_BZYX)]
    if encoder.position != "none":
        channels.append(encode_position(coordinate_grid(conditions.coordinates_BN), encoder.frequencies))
    return torch.cat(channels, 1)


def monai_answer(network, x, t, conditions):
    context = network.encoder.region(conditions.region_B)[:, None]
    h = all_channels(network.encoder, x, conditions)
    return network.unet(h, t, context=context, class_labels=conditions.region_B)


def gradients(network, answer):
    network.zero_grad()
    answer.square().sum().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("activations", KINDS)
@pytest.mark.parametrize(
    "change", [{}, {"anatomy_encoding": "onehot"}, {"position": "coordinates"}, {"position": "none"}]
)
def test_values_and_gradients_are_those_of_monais_forward(change, activations):
    network, (x, t, conditions) = randomised(DiffusionNetwork(SMALL.replace(**change))), inputs()
    network.activations = activations
    expected, answer = monai_answer(network, x, t, conditions), network(x, t, conditions)
    torch.testing.assert_close(answer, expected, **CLOSE)
    theirs, ours = gradients(network, expected), gradients(network, answer)
    for name, gradient in theirs.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, atol=1e-4 * scale + 1e-6, rtol=1e-3, msg=name)


@pytest.mark.parametrize("activations", KINDS)
def test_a_controlled_network_gives_what_monais_control_gives(activations):
    network, (x, t, conditions) = randomised(ControlledNetwork(DiffusionNetwork(SMALL))), inputs()
    network.activations = activations
    control = torch.randn_like(x)
    h = all_channels(network.base.encoder, x, conditions)
    told = {"context": network.base.encoder.region(conditions.region_B)[:, None], "class_labels": conditions.region_B}
    down, mid = network.control(h, t, control, **told)
    expected = network.base.unet(
        h, t, **told, down_block_additional_residuals=tuple(down), mid_block_additional_residual=mid
    )
    torch.testing.assert_close(network(x, t, conditions, control), expected, **CLOSE)


def test_position_is_convolved_as_if_its_channels_were_there():
    torch.manual_seed(0)
    axes = stack_axes([coordinates(start, (1, 2, 1.5), (9, 20, 14), (4, 6, 5)) for start in ((1, 2, 0), (3, 0, 2))])
    weight = torch.randn(7, 3 + 6 * 4, 3, 3, 3)
    expected = functional.conv3d(encode_position(coordinate_grid(axes), 4), weight, padding=1)
    torch.testing.assert_close(position_convolution(weight, encode_axes(axes, 4)), expected, **CLOSE)


def test_an_enlarged_volume_is_convolved_as_if_it_were_there():
    torch.manual_seed(0)
    conv, h = nn.Conv3d(3, 5, 3, padding=1), torch.randn(2, 3, 2, 4, 3)
    expected = conv(functional.interpolate(h, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(convolve_enlarged(conv, h), expected, **CLOSE)


def test_a_recomputed_norm_keeps_nothing_but_its_input():
    norm, conv = nn.GroupNorm(2, 4), nn.Conv3d(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 6, 6, 6, requires_grad=True)

    def kept(recompute):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            norm_convolution(norm, conv, (x,), recompute)
        return sum(size == x.numel() for size in sizes)

    assert kept(recompute=True) == 1
    assert kept(recompute=False) == 3


def test_channels_last_and_another_shape_than_a_cube_change_nothing():
    network = randomised(DiffusionNetwork(ModelConfig(**SMALL.model_dump())))
    x, t, conditions = inputs()
    axis_z, axis_y, axis_x = conditions.coordinates_BN
    conditions = Conditions(conditions.region_B, conditions.anatomy_BZYX[:, :4], (axis_z[:, :4], axis_y, axis_x))
    x = x[:, :, :4]
    expected = monai_answer(network, x, t, conditions)
    network = network.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(network(x, t, conditions), expected, **CLOSE)
