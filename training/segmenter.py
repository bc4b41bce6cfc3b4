"""The segmenter's network and what it loses: organs and lesions named in an image, and in nothing but the image.

Told the place or the region, it could name organs that are not drawn. Letters: B batch, C channels; Z Y X space.
Channels are the labels of anatomy and, last, the lesion.
"""

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from monai.networks.nets.basic_unet import BasicUNet
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from preprocessing.anatomy import BACKGROUND, UNKNOWN, class_groups
from training.config import SegmenterConfig

GROUPS = ("background", "surface", "bone", "cardiovascular", "lung", "muscle", "organ")
IGNORED = 255  # the label of unknown anatomy
RARE = 1e-3  # share of a sample below which a label is not weighted more
LESION_WEIGHT = 10.0  # of a voxel of lesion against one without
NOT_LABELLED = -1.0  # of a lesion mask


class SegmenterNetwork(nn.Module):
    """MONAI's BasicUNet: x (B, 1, Z, Y, X) on [-1, 1] to logits (B, C, Z, Y, X); edges are multiples of 16."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.labels = label_table(config)
        self.unet = BasicUNet(3, 1, num_labels(config) + 1, config.channels)

    def forward(self, x_B1ZYX: Tensor) -> Tensor:
        """Logits (B, C, Z, Y, X), float32."""
        return self.unet(x_B1ZYX).float()


def label_table(config: SegmenterConfig) -> NDArray[np.uint8]:
    """The label (120) of each anatomy id: itself, or the place of its group; unknown anatomy is ignored."""
    if config.classes == "anatomy":
        return np.array([*range(UNKNOWN), IGNORED], np.uint8)
    groups = class_groups()
    return np.array([0, *(GROUPS.index(groups[i]) for i in range(1, UNKNOWN)), IGNORED], np.uint8)


def num_labels(config: SegmenterConfig) -> int:
    """How many labels there are, background among them."""
    return int(label_table(config)[:UNKNOWN].max()) + 1


def anatomy_loss(logits_CZYX: Tensor, labels_ZYX: Tensor) -> Tensor:
    """Cross-entropy and soft Dice of one sample; unknown voxels do not count, nor labels that it does not show.

    The entropy of a label is weighted by the root of its rarity in the sample, or most would be that of air.
    """
    known = labels_ZYX != IGNORED
    if not known.any():
        return logits_CZYX.sum() * 0
    counts = torch.bincount(labels_ZYX[known], minlength=len(logits_CZYX))
    weight = (counts / counts.sum() + RARE) ** -0.5
    entropy = functional.cross_entropy(logits_CZYX[None], labels_ZYX[None], weight, ignore_index=IGNORED)
    shown = labels_ZYX[known].unique()
    shown = shown[shown != BACKGROUND].reshape(-1, 1, 1, 1)
    if not len(shown):
        return entropy
    chances = logits_CZYX.softmax(0)[shown[:, 0, 0, 0]] * known
    return entropy + DiceLoss()(chances[None], (labels_ZYX == shown)[None].float())


def lesion_loss(logits_ZYX: Tensor, mask_ZYX: Tensor) -> Tensor:
    """Binary cross-entropy and soft Dice of one sample; 0 where the case has no lesion labels."""
    if (mask_ZYX == NOT_LABELLED).all():
        return logits_ZYX.sum() * 0
    weight = logits_ZYX.new_tensor(LESION_WEIGHT)
    entropy = functional.binary_cross_entropy_with_logits(logits_ZYX, mask_ZYX, pos_weight=weight)
    return entropy + DiceLoss(sigmoid=True)(logits_ZYX[None, None], mask_ZYX[None, None])
