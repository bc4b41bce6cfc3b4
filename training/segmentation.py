"""Segmentation: how the segmenter learns from real cases of the training split, and what it finds in an image.

It is trained by the loop and on the samples of pre-training. Letters: B batch, C channels; Z Y X space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from infra.errors import UserError
from infra.lake import Lake
from training.config import SegmenterConfig
from training.data import Batch, Sample
from training.loading import load_weights
from training.objectives import NoiseObjective
from training.pictures import picture_of
from training.precision import autocast, default_device, place
from training.runs import read_run
from training.segmenter import NOT_LABELLED, SegmenterNetwork, anatomy_loss, label_table, lesion_loss

AIR = -1.0
OVERLAP = 0.5  # of sliding windows
WINDOWS = 4  # in one network call


@dataclass(frozen=True)
class Segmentation:
    """What was found in an image: labels of anatomy, uint8, and lesion, both of the image's shape."""

    anatomy: NDArray[np.uint8]
    lesion: NDArray[np.bool_]


@dataclass(frozen=True)
class SegmentationObjective(NoiseObjective):
    """Cross-entropy and soft Dice of the classes that a sample shows, of anatomy and of the lesion.

    `noise` is the most white noise that is added; a sample's t says how much of it. Its control is `lesion_target`.
    """

    labels: NDArray[np.uint8] = field(default_factory=lambda: label_table(SegmenterConfig()))
    noise: float = 0.1

    def losses(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss of each sample (B)."""
        sigma = self.noise * batch.t_B.float() / self.schedule.timesteps
        logits = network(batch.x0_B1ZYX + sigma.reshape(-1, 1, 1, 1, 1) * batch.noise_B1ZYX)
        assert batch.control_BCZYX is not None
        labels = torch.as_tensor(self.labels, device=logits.device)[batch.conditions.anatomy_BZYX.long()]
        pairs = zip(logits, labels.long(), batch.control_BCZYX[:, 0], strict=True)
        return torch.stack([anatomy_loss(s[:-1], a) + lesion_loss(s[-1], m) for s, a, m in pairs])

    def picture(self, network: nn.Module, device: torch.device) -> bytes:
        """The examples with the outlines of what is there and of what the network finds, as PNG."""
        examples, config = self.examples(), self.config
        network.eval()
        with torch.no_grad(), autocast(config.precision, device):
            found = network(examples.x0_B1ZYX.to(device))[:, :-1].argmax(1).cpu()
        return picture_of(examples, examples.x0_B1ZYX[:, 0], found, "found")


def lesion_target(samples: Sequence[Sample], rng: np.random.Generator) -> Tensor:
    """Lesion masks (B, 1, Z, Y, X) as 0 / 1; −1 throughout where the case has no lesion labels."""
    masks = [np.full(s.x0_ZYX.shape, NOT_LABELLED) if s.lesion_ZYX is None else s.lesion_ZYX > 0 for s in samples]
    return torch.from_numpy(np.stack(masks)[:, None].astype(np.float32))


@dataclass(frozen=True)
class TrainedSegmenter:
    """A finished segmenter on this machine's device."""

    network: SegmenterNetwork
    fingerprint: str

    @torch.inference_mode()
    def segment(self, x_ZYX: NDArray) -> Segmentation:
        """Organs and lesions of an image on [-1, 1]; windows overlap by half."""
        config, device = self.network.config, default_device()
        x = torch.as_tensor(np.asarray(x_ZYX, np.float32), device=device)[None, None]
        with autocast(config.train.precision, device):
            logits = sliding_window_inference(
                x, (config.patch,) * 3, WINDOWS, self.network, OVERLAP, mode="gaussian", cval=AIR
            )
        assert isinstance(logits, Tensor)
        anatomy, lesion = logits[0, :-1].argmax(0), logits[0, -1] > 0
        return Segmentation(anatomy.to(torch.uint8).cpu().numpy(), lesion.cpu().numpy())


def open_segmenter(lake: Lake, key: str) -> TrainedSegmenter:
    """The segmenter of a finished run.

    Raises:
        UserError: the run is not finished, no segmenter's, or its checkpoint is damaged.
    """
    seal = read_run(lake, key)
    if seal.stage != "segmenter":
        raise UserError(f"{lake.url_of(key)} is no segmenter but a run of {seal.stage}")
    config = SegmenterConfig.model_validate(seal.config)
    network = SegmenterNetwork(config)
    network.load_state_dict(load_weights(lake, key, seal))
    placed = place(network.eval().requires_grad_(False), default_device(), config.train.precision)
    return TrainedSegmenter(placed, seal.run)
