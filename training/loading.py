"""Loading: the network of a finished run."""

from typing import Any

import torch
from torch import Tensor

from infra.errors import UserError
from infra.lake import Lake
from training.checkpoint import read_checkpoint
from training.config import ModelConfig
from training.networks import ControlledNetwork, DiffusionNetwork
from training.precision import place
from training.runs import RunSeal, read_run


def load_network(lake: Lake, key: str) -> tuple[DiffusionNetwork | ControlledNetwork, ModelConfig, dict[str, Any]]:
    """The averaged weights of a finished run in eval mode on the CPU, its model config, and its seal as a dict.

    Raises:
        UserError: the run is not finished, of another kind, or its checkpoint is damaged.
    """
    seal = read_run(lake, key)
    if seal.model is None:
        raise UserError(f"{lake.url_of(key)} is no diffusion model but a {seal.stage}; name another run")
    network: DiffusionNetwork | ControlledNetwork = DiffusionNetwork(seal.model)
    if seal.stage == "finetune":
        network = ControlledNetwork(network)
    network.load_state_dict(load_weights(lake, key, seal))
    return place(network.eval().requires_grad_(False), torch.device("cpu")), seal.model, seal.model_dump(mode="json")


def load_weights(lake: Lake, key: str, seal: RunSeal) -> dict[str, Tensor]:
    """The averaged weights of a finished run of any kind, by the names of its network.

    Raises:
        UserError: its checkpoint is damaged.
    """
    try:
        state = read_checkpoint(lake, seal.checkpoint, seal.sha256)["state"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"the checkpoint {seal.checkpoint} is damaged or gone ({error}); remove {key} and train again"
        ) from None
    return {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
