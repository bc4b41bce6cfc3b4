"""Feature networks: volumes on [-1, 1] in, one vector per sample out, for each plane that a network looks at.

`random-conv3d-seed0` follows from a fixed seed; it needs no download and is a regression guard, never a claim about
quality. The others are real networks whose weights lie on this machine; their name carries the first characters of
the weights' digest, so numbers of different weights never mix. Letters: B batch, N samples, F features.
"""

import itertools
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import ResNet, resnet50
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluation.extractor_files import RANDOM, SHORT, ExtractorName, require_weights, weights_digests
from infra.errors import UserError

CHANNELS = (1, 8, 16, 32)
PLANES = {"axial": 1, "coronal": 2, "sagittal": 3}  # the axis of (B, Z, Y, X) along which slices lie
BGR_MEANS = (0.406, 0.456, 0.485)  # of ImageNet: what RadImageNet's networks were trained to have taken off
SLICES_AT_ONCE = 64
_LAYOUT: dict[str, Any] = {"feed_forward": False, "shortcut_type": "B", "bias_downsample": False}
STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of a bare backbone


Extract = Callable[[NDArray], dict[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Extractor:
    """A feature network; `extract` gives (N, F) by plane, "" where it looks at whole volumes."""

    name: str
    extract: Extract


def open_extractor(name: ExtractorName) -> Extractor:
    """The feature network of a name, on the CPU.

    Raises:
        UserError: its weights are not there or are not those of such a network.
    """
    if name == RANDOM:
        return Extractor(name, lambda volumes: {"": extract_random(volumes)})
    path, digest = require_weights(name), weights_digests([name])[name]
    if name == "medicalnet-resnet50-3d":
        network = _loaded(resnet50(spatial_dims=3, n_input_channels=1, **_LAYOUT), path)
        run = _volumes
    else:
        network = _loaded(resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, **_LAYOUT), path)
        run = _slices
    return Extractor(f"{name} {digest[:SHORT]}", lambda volumes: run(network, volumes))


class RandomFeatures(nn.Module):
    """32 features of each octant of a volume on [-1, 1]: means of randomly convolved, rectified values."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = [
            torch.randn((after, before, 3, 3, 3), generator=generator) * math.sqrt(2 / (27 * before))
            for before, after in itertools.pairwise(CHANNELS)
        ]

    @torch.no_grad()
    def forward(self, x_BZYX: Tensor) -> Tensor:
        """Features (8·B, F): eight octants per volume, each one sample."""
        h = x_BZYX[:, None].float()
        for weight in self.weights:
            h = functional.leaky_relu(functional.conv3d(h, weight, stride=2, padding=1), 0.2)
        return functional.adaptive_avg_pool3d(h, 2).movedim(1, -1).flatten(0, 3)


def extract_random(volumes_BZYX: NDArray) -> NDArray[np.float64]:
    """Features (8·B, F) of volumes on [-1, 1], by the random network."""
    return RandomFeatures()(torch.as_tensor(np.asarray(volumes_BZYX, np.float32))).double().numpy()


@torch.inference_mode()
def _volumes(network: nn.Module, volumes_BZYX: NDArray) -> dict[str, NDArray[np.float64]]:
    """One sample per volume, each with mean 0 and variance 1, as MedicalNet was trained."""
    features = []
    for volume in np.asarray(volumes_BZYX, np.float32):
        normed = (volume - volume.mean()) / (volume.std() + 1e-6)
        features.append(network(torch.as_tensor(normed)[None, None]).double().numpy())
    return {"": np.concatenate(features)}


@torch.inference_mode()
def _slices(network: nn.Module, volumes_BZYX: NDArray) -> dict[str, NDArray[np.float64]]:
    """One sample per slice of each plane, grey in all three channels on [0, 1] less their means (MAISI's protocol)."""
    unit = (np.asarray(volumes_BZYX, np.float32) + 1) / 2
    means = torch.tensor(BGR_MEANS).reshape(1, 3, 1, 1)
    found = {}
    for plane, axis in PLANES.items():
        slices = torch.as_tensor(np.moveaxis(unit, axis, 1).reshape(-1, *np.delete(unit.shape, (0, axis))))
        parts = [network(part[:, None].expand(-1, 3, -1, -1) - means) for part in slices.split(SLICES_AT_ONCE)]
        found[plane] = torch.cat(parts).double().numpy()
    return found


def _loaded(network: ResNet, path: Path) -> nn.Module:
    """The network with a file's weights, in eval mode.

    Raises:
        UserError: the file is no checkpoint of weights alone, or of another network.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} holds no weights that can be read ({reason}): download it again") from None
    weights = dict(_renamed(saved.get("state_dict", saved) if isinstance(saved, dict) else {}))
    wanted = network.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    for key in wanted.keys() - counters:
        if key not in weights or weights[key].shape != wanted[key].shape:
            raise UserError(f"{path} holds no weights of this network: {key} is missing or of another shape")
    network.load_state_dict({key: weights.get(key, value) for key, value in wanted.items()})
    return network.eval().requires_grad_(False)


def _renamed(weights: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Weights by MONAI's names: without the prefixes of wrappers, and stages by name where they are numbered."""
    for key, value in weights.items():
        name = key.removeprefix("module.").removeprefix("backbone.")
        first, _, rest = name.partition(".")
        yield f"{STAGES[first]}.{rest}" if first in STAGES else name, value
