"""One training step, ours against MONAI's U-Net fed a one-hot map and position channels; needs torch, MONAI, pydantic.

Both sides have the same multipliers, the same batch and, by `with_our_weights`, the same function: an embedded map
before a convolution is a one-hot map before a convolution of limited rank. A step is the L1 of ε, its gradient,
clipping and Adam.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from coordinate_grid import coordinate_grid
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.utils import one_hot
from torch import Tensor, nn

from preprocessing.anatomy import BODY
from training.conditioning import Conditions, coordinates, encode_position, stack_axes
from training.config import ModelConfig
from training.diffusion import Schedule
from training.networks import DiffusionNetwork, unet_arguments
from training.precision import Precision, autocast

Step = Callable[[], Tensor]


class OneHotNetwork(nn.Module):
    """What one builds of MONAI's parts: x_t, 118 classes (background is none of them) and 39 channels of position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.frequencies = config.position_frequencies
        self.region = nn.Embedding(4, config.context_dim)
        channels = BODY + 3 + 6 * self.frequencies
        self.unet = DiffusionModelUNet(out_channels=1, **unet_arguments(config, channels))

    def forward(self, x_B1ZYX: Tensor, t_B: Tensor, conditions: Conditions) -> Tensor:
        map_BCZYX = one_hot(conditions.anatomy_BZYX[:, None], BODY + 1)[:, 1:]
        position = encode_position(coordinate_grid(conditions.coordinates_BN), self.frequencies)
        h = torch.cat([x_B1ZYX, map_BCZYX, position], 1)
        context = self.region(conditions.region_B)[:, None]
        return self.unet(h, t_B, context=context, class_labels=conditions.region_B).float()


class EmbeddedNetwork(nn.Module):
    """Our network by MONAI's own `forward`: the map embedded, all channels laid down."""

    def __init__(self, ours: DiffusionNetwork) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x_B1ZYX: Tensor, t_B: Tensor, conditions: Conditions) -> Tensor:
        encoder = self.ours.encoder
        position = encode_position(coordinate_grid(conditions.coordinates_BN), encoder.frequencies)
        h = torch.cat([x_B1ZYX, encoder.anatomy(conditions.anatomy_BZYX), position], 1)
        context = encoder.region(conditions.region_B)[:, None]
        return self.ours.unet(h, t_B, context=context, class_labels=conditions.region_B).float()


def our_network(config: ModelConfig, seed: int = 0) -> DiffusionNetwork:
    """Ours, moved off its zero convolutions so that every layer counts; background embedded as zero."""
    torch.manual_seed(seed)
    network = DiffusionNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        network.encoder.anatomy.embedding.weight[0] = 0
    return network


@torch.no_grad()
def with_our_weights(network: OneHotNetwork, ours: DiffusionNetwork) -> OneHotNetwork:
    """The same function of x_t, t and conditions: the embedding is multiplied into the first convolution."""
    state = ours.unet.state_dict()
    weight, table = state["conv_in.conv.weight"], ours.encoder.anatomy.embedding.weight
    width = table.shape[1]
    classes = torch.einsum("ocklm,ic->oiklm", weight[:, 1 : 1 + width], table[1 : BODY + 1])
    state["conv_in.conv.weight"] = torch.cat([weight[:, :1], classes, weight[:, 1 + width :]], 1)
    network.unet.load_state_dict(state)
    network.region.load_state_dict(ours.encoder.region.state_dict())
    return network


@dataclass(frozen=True)
class StepInput:
    """What one step learns from."""

    x0_B1ZYX: Tensor
    noise_B1ZYX: Tensor
    t_B: Tensor
    conditions: Conditions


def random_input(patch: int, batch: int, device: torch.device, seed: int = 0) -> StepInput:
    """Noise for an image and for ε, a map of blocks of 8³ voxels, a patch somewhere in a chest."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 1, patch, patch, patch)
    blocks = torch.randint(0, BODY + 1, (batch, *[-(-patch // 8)] * 3), generator=generator, dtype=torch.uint8)
    for axis in (1, 2, 3):
        blocks = blocks.repeat_interleave(8, axis).narrow(axis, 0, patch)
    axes = stack_axes([coordinates((30, 60, 90), (1, 1, 1), (350, 400, 420), (patch,) * 3)] * batch)
    conditions = Conditions(torch.arange(batch) % 3, blocks, axes)
    t = torch.randint(0, 1000, (batch,), generator=generator)
    x0, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    return StepInput(x0.to(device), noise.to(device), t.to(device), conditions.to(device))


def make_step(network: nn.Module, given: StepInput, precision: Precision) -> Step:
    """One optimiser step on the input; gives the loss before it."""
    schedule = Schedule()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)
    device = given.x0_B1ZYX.device

    def step() -> Tensor:
        with autocast(precision, device):
            x_t = schedule.add_noise(given.x0_B1ZYX, given.noise_B1ZYX, given.t_B)
            loss = (network(x_t, given.t_B, given.conditions) - given.noise_B1ZYX).abs().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
