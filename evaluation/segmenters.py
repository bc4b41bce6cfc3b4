"""Segmenters that read what was drawn: is every organ where the map wanted it, is there a lesion where one was asked?

`segmenter <run>` was trained on the lake's training cases; `totalsegmentator <version>` is the tool of that name, where
a sweep asks for it. Their name is part of the metric's name, and what they find in real held-out images is the ceiling.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import Measurement, dice, missing
from infra.settings import load_settings
from preprocessing import recipe, segmenter, totalsegmentator
from preprocessing.anatomy import BACKGROUND, BODY, NUM_IDS
from preprocessing.geometry import Geometry
from preprocessing.regions import Window
from preprocessing.volume import Volume
from training.segmentation import TrainedSegmenter
from training.segmenter import IGNORED

MIN_VOXELS = 10  # of a class in the map, or it is not judged
SHORT = 8  # characters of a run that tell it apart


class Segmenter(Protocol):
    """Names organs in an image. `labels` (120): the label of each anatomy id."""

    @property
    def name(self) -> str:
        """As it stands in a metric's name."""
        ...

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The label of each of the 120 anatomy ids; IGNORED where it has none."""
        ...

    def find_anatomy(self, x_ZYX: NDArray, window: Window, spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """The label of every voxel of an image on [-1, 1] of a window."""
        ...


@dataclass(frozen=True)
class LakeSegmenter:
    """The one that the pipeline trained; it finds lesions too."""

    trained: TrainedSegmenter

    @property
    def name(self) -> str:
        """`segmenter` and the first characters of its run."""
        return f"segmenter {self.trained.fingerprint[:SHORT]}"

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Classes themselves, or their groups."""
        return self.trained.network.labels

    def find_anatomy(self, x_ZYX: NDArray, window: Window, spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """The label of every voxel."""
        return self.trained.segment(x_ZYX).anatomy

    def find_lesion(self, x_ZYX: NDArray) -> NDArray[np.bool_]:
        """Where it sees a lesion in an image on [-1, 1]."""
        return self.trained.segment(x_ZYX).lesion


@dataclass(frozen=True)
class ToolSegmenter:
    """TotalSegmentator as this machine has it, in the version and mode that a sweep pins."""

    pinned: recipe.Segmenter

    @property
    def name(self) -> str:
        """The tool, its version and, if so, that it is the fast model."""
        return f"{self.pinned.tool} {self.pinned.version}{' fast' * self.pinned.fast}"

    @property
    def labels(self) -> NDArray[np.uint8]:
        """All classes but the body itself, which it does not name."""
        labels = np.arange(NUM_IDS, dtype=np.uint8)
        labels[BODY:] = IGNORED
        return labels

    def find_anatomy(self, x_ZYX: NDArray, window: Window, spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """The class of every voxel.

        Raises:
            UserError: the tool is not there.
            ToolError: it failed on this image.
        """
        hu = np.rint(window.to_hu(x_ZYX)).astype(np.int16)
        tool = totalsegmentator.find_tool(self.pinned, load_settings())
        return segmenter.segment(Volume(hu, Geometry(hu.shape, spacing_mm)), self.pinned, tool)


def anatomy_dice(
    found_by: Segmenter, x_ZYX: NDArray, anatomy_ZYX: NDArray, window: Window, spacing_mm: tuple[float, float, float]
) -> Measurement:
    """Mean Dice over the organs of a map (ids, Z, Y, X) of what a segmenter finds in an image on [-1, 1].

    Background and body are no organs, and unknown voxels do not count.
    """
    metric = f"dice_anatomy[{found_by.name}]"
    labels = found_by.labels[anatomy_ZYX]
    known = labels != IGNORED
    ids, counts = np.unique(labels[known], return_counts=True)
    shown = [i for i, n in zip(ids, counts, strict=True) if n >= MIN_VOXELS]
    organs = [i for i in shown if i not in (found_by.labels[BACKGROUND], found_by.labels[BODY])]
    if not organs:
        return missing(metric, "1", f"no organ has {MIN_VOXELS} voxels in the map")
    found = found_by.find_anatomy(x_ZYX, window, spacing_mm)
    return Measurement(metric, "1", float(np.mean([dice((found == i) & known, labels == i) for i in organs])))


def lesion_dice(found_by: LakeSegmenter, x_ZYX: NDArray, mask_ZYX: NDArray) -> Measurement:
    """Dice of the lesion that was asked for and what a segmenter finds in an image on [-1, 1]."""
    return Measurement(f"dice_lesion[{found_by.name}]", "1", dice(found_by.find_lesion(x_ZYX), mask_ZYX))
