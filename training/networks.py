"""The networks: a conditional 3-D U-Net, and the same with a ControlNet joined by zero convolutions (SPEC §3, §5).

Both are called network(x_B1ZYX, t_B, conditions, control_BCZYX=None) -> eps_B1ZYX, know nothing of noise schedules,
and answer in float32.
"""

import torch
from monai.networks.nets.controlnet import ControlNet
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from preprocessing.regions import REGIONS
from training.conditioning import ConditionEncoder, Conditions
from training.config import Activations, ModelConfig
from training.unet import Descent, decode, encode


class DiffusionNetwork(nn.Module):
    """MONAI's DiffusionModelUNet on x_t with the condition channels beside it.

    The region enters twice: as the context of the spatial transformers and, added to the time embedding, as a class.
    `activations` says what is kept for the backward pass.
    """

    activations: Activations = "recompute"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConditionEncoder(config)
        self.unet = DiffusionModelUNet(out_channels=1, **unet_arguments(config, self.encoder.num_channels))
        self._hear_the_image()

    @torch.no_grad()
    def _hear_the_image(self) -> None:
        """Starts the first convolution as if x_t were its only input; one channel of fifty is drowned otherwise."""
        weight = self.unet.get_parameter("conv_in.conv.weight")
        weight[:, :1] *= weight.shape[1] ** 0.5
        weight[:, 1:] *= 0.1

    def forward(self, x_B1ZYX: Tensor, t_B: Tensor, conditions: Conditions, control: Tensor | None = None) -> Tensor:
        """ε̂ (B, 1, Z, Y, X).

        Raises:
            ValueError: a control was given; only a ControlledNetwork can use one.
        """
        if control is not None:
            raise ValueError("this network takes no control; fine-tune a ControlledNetwork for it")
        encoded, region = self.encoder(x_B1ZYX, conditions), conditions.region_B
        descent = encode(self.unet, encoded, t_B, region, self.activations)
        return decode(self.unet, encoded, descent, self.activations).float()


class ControlledNetwork(nn.Module):
    """A locked base and a trainable copy of its encoder that also sees a control volume.

    The copy starts with the base's weights and joins through zero convolutions, so that an untrained ControlledNetwork
    answers exactly as its base. It gets the base's condition channels too, through the base's encoder. `locked=False`
    trains the base as well (the comparison "from scratch").
    """

    activations: Activations = "recompute"

    def __init__(self, base: DiffusionNetwork, control_channels: int = 1, locked: bool = True) -> None:
        super().__init__()
        self.config = base.config
        self.base = base.requires_grad_(not locked)
        self.control = ControlNet(
            conditioning_embedding_in_channels=control_channels,
            conditioning_embedding_num_channels=(16,),  # one entry: no stride, pixel space
            **unet_arguments(base.config, base.encoder.num_channels),
        )
        copied = self.control.state_dict().keys() & base.unet.state_dict().keys()
        self.control.load_state_dict({key: base.unet.state_dict()[key] for key in copied}, strict=False)

    def forward(self, x_B1ZYX: Tensor, t_B: Tensor, conditions: Conditions, control: Tensor | None = None) -> Tensor:
        """ε̂ (B, 1, Z, Y, X) given a control (B, C, Z, Y, X) on the grid of x.

        Raises:
            ValueError: no control was given.
        """
        if control is None:
            raise ValueError("a ControlledNetwork needs its control volume (low resolution image or lesion mask)")
        unet, copy = self.base.unet, self.control
        encoded, region = self.base.encoder(x_B1ZYX, conditions), conditions.region_B
        base = encode(unet, encoded, t_B, region, self.activations)
        seen = encode(copy, encoded, t_B, region, self.activations, copy.controlnet_cond_embedding(control))
        joins = zip(base.skips, copy.controlnet_down_blocks, seen.skips, strict=True)
        skips = [skip + join(other) for skip, join, other in joins]
        middle = base.middle + copy.controlnet_mid_block(seen.middle)
        return decode(unet, encoded, Descent(skips, middle, base.embedding_BC), self.activations).float()


def unet_arguments(config: ModelConfig, condition_channels: int) -> dict:
    """The arguments that MONAI's U-Net and ControlNet share."""
    return {
        "spatial_dims": 3,
        "in_channels": 1 + condition_channels,
        "num_res_blocks": config.num_res_blocks,
        "channels": config.channels,
        "attention_levels": config.attention,
        "norm_num_groups": config.norm_groups,
        "num_head_channels": config.head_channels,
        "with_conditioning": True,
        "cross_attention_dim": config.context_dim,
        "num_class_embeds": len(REGIONS) + 1,
        "use_flash_attention": True,
    }


def count_parameters(network: nn.Module, trainable: bool = False) -> int:
    """How many numbers the network holds, or only how many of them are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)
