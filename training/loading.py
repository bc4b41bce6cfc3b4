"""Loading: the network of a finished run."""

from typing import Any

import torch

from infra.errors import UserError
from infra.lake import Lake
from training.checkpoint import read_checkpoint
from training.config import ModelConfig
from training.networks import ControlledNetwork, DiffusionNetwork
from training.precision import place
from training.runs import read_run


def load_network(lake: Lake, key: str) -> tuple[DiffusionNetwork | ControlledNetwork, ModelConfig, dict[str, Any]]:
    """The averaged weights of a finished run in eval mode on the CPU, its model config, and its seal as a dict.

    Raises:
        UserError: the run is not finished, or its checkpoint is damaged.
    """
    seal = read_run(lake, key)
    try:
        state = read_checkpoint(lake, seal.checkpoint, seal.sha256)["state"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"the checkpoint {seal.checkpoint} is damaged or gone ({error}); remove {key} and train again"
        ) from None
    network: DiffusionNetwork | ControlledNetwork = DiffusionNetwork(seal.model)
    if seal.stage == "finetune":
        network = ControlledNetwork(network)
    weights = {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
    network.load_state_dict(weights)
    return place(network.eval().requires_grad_(False), torch.device("cpu")), seal.model, seal.model_dump(mode="json")
