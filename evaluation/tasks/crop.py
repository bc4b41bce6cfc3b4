"""Crops: a box of a stored case's region as arrays, and the scene that tells the network where it lies.

Two kinds of scene: `blind_scene` takes no labels, so that nothing a blind task does can hand them over;
`labelled_scene` takes a map. A region smaller than the crop is padded symmetrically with air, and the canvas with it
(SPEC §4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.case import RegionName
from preprocessing.regions import REGIONS, WINDOWS, RegionExtent, Window
from preprocessing.store import StoredCase
from training.crops import Canvas, read_box, region_canvas
from training.sliding_windows import Scene, unknown_anatomy

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Subject:
    """One region of one stored case."""

    stored: StoredCase
    source: str
    case: str
    patient: str
    extent: RegionExtent

    @property
    def region(self) -> RegionName:
        """The region's name."""
        return self.extent.name

    @property
    def window(self) -> Window:
        """The region's HU window."""
        return WINDOWS[self.region]

    @property
    def shape_zyx(self) -> Index:
        """Level-0 voxels of the region."""
        _, height, width = self.stored.geometry(0).shape
        return self.extent.z_stop - self.extent.z_start, height, width

    def spacing_at(self, shape_zyx: Sequence[int]) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel where the whole region is resized to a shape."""
        own = zip(self.stored.geometry(0).spacing_mm, self.shape_zyx, shape_zyx, strict=True)
        z, y, x = (spacing * size / wanted for spacing, size, wanted in own)
        return z, y, x

    def has(self, companion: str) -> bool:
        """Whether the case keeps that companion."""
        return companion in self.stored.record.companions

    def region_box(self, name: str, level: int = 0) -> NDArray:
        """The whole region of `image`, `anatomy`, `lesion` or a companion at a level."""
        factor = 2**level
        first, last = self.extent.z_start // factor, -(-self.extent.z_stop // factor)
        _, height, width = self.stored.geometry(level).shape
        return self.stored.read(name, level, (first, 0, 0), (last - first, height, width))


@dataclass(frozen=True)
class Crop:
    """A box of a subject at level 0: `start_zyx` counts from the region's first voxel and is negative where padded."""

    subject: Subject
    start_zyx: Index
    field_zyx: Index

    @property
    def window(self) -> Window:
        """The region's HU window."""
        return self.subject.window

    @property
    def canvas(self) -> Canvas:
        """The region with the air that a larger crop needs around it."""
        subject = self.subject
        return region_canvas(subject.stored.geometry(0).shape, subject.extent, self.field_zyx)

    @property
    def start_on_canvas(self) -> Index:
        """Where the crop begins on the canvas."""
        z, y, x = (start + pad for start, pad in zip(self.start_zyx, self.canvas.pad_zyx, strict=True))
        return z, y, x

    @property
    def z_mm(self) -> tuple[float, float]:
        """Where the crop's first axial slice lies in the world, and how far it is to the next one upwards."""
        geometry, first = self.subject.stored.geometry(0), self.subject.extent.z_start + self.start_zyx[0]
        return float(geometry.world((first, 0, 0))[0]), geometry.spacing_mm[0]

    def hu(self, name: str = "image") -> NDArray[np.float32]:
        """HU of the image or a companion, float32; padding is air."""
        return self._read(name).astype(np.float32)

    def normalised(self, name: str = "image") -> NDArray[np.float32]:
        """The image or a companion on [-1, 1], clipped at the window."""
        return self.window.normalise(self.hu(name))

    def labels(self, name: str = "anatomy") -> NDArray[np.uint8]:
        """Anatomy or lesion ids; a case without lesions has an empty lesion mask."""
        if name == "lesion" and not self.subject.stored.record.lesion:
            return np.zeros(self.field_zyx, np.uint8)
        return self._read(name).astype(np.uint8)

    def _read(self, name: str) -> NDArray:
        return read_box(self.subject.stored, self.canvas, self.start_on_canvas, name, self.field_zyx)

    def blind_scene(self, control_CZYX: NDArray | None = None) -> Scene:
        """The scene of a task that may not know the anatomy: 119 everywhere, whatever the case's labels are."""
        return self._scene(unknown_anatomy(self.field_zyx), control_CZYX)

    def labelled_scene(self, anatomy_ZYX: NDArray, control_CZYX: NDArray | None = None) -> Scene:
        """The scene of a task that is given an anatomy map."""
        return self._scene(torch.as_tensor(np.asarray(anatomy_ZYX, np.uint8)), control_CZYX)

    def _scene(self, anatomy: torch.Tensor, control: NDArray | None) -> Scene:
        z, y, x = self.start_on_canvas
        return Scene(
            region=REGIONS.index(self.subject.region),
            anatomy_ZYX=anatomy,
            start_zyx=(float(z), float(y), float(x)),
            step_zyx=(1.0, 1.0, 1.0),
            canvas_zyx=self.canvas.canvas_zyx,
            control_CZYX=None if control is None else torch.as_tensor(np.asarray(control, np.float32)),
        )


def crop_around(subject: Subject, centre_zyx: Sequence[float], field_zyx: Index) -> Crop:
    """The crop centred as near to a region voxel as the region's borders allow."""
    start = []
    for centre, size, length in zip(centre_zyx, subject.shape_zyx, field_zyx, strict=True):
        first = round(float(centre) - length / 2 + 0.5)
        start.append(min(max(0, first), size - length) if size >= length else -((length - size) // 2))
    return Crop(subject, (start[0], start[1], start[2]), field_zyx)


def crop_body(subject: Subject, field_zyx: Index) -> Crop:
    """The crop around the centre of the body within the region."""
    level = subject.stored.num_levels - 1
    return crop_around(subject, centre_of(subject.region_box("anatomy", level) > 0, 2**level), field_zyx)


def centre_of(mask: NDArray, factor: int = 1) -> list[float]:
    """The mean index of a mask in voxels that are `factor` times finer; the array's middle where it is empty."""
    if not mask.any():
        return [(n * factor - 1) / 2 for n in mask.shape]
    return [float((axis.mean() + 0.5) * factor - 0.5) for axis in np.nonzero(mask)]


def image_scene(subject: Subject, anatomy_ZYX: NDArray) -> Scene:
    """The scene of a whole region resized to the shape of its thumbnail's anatomy map (the image level)."""
    canvas = subject.shape_zyx
    step = [n / m for n, m in zip(canvas, anatomy_ZYX.shape, strict=True)]
    anatomy = torch.as_tensor(np.asarray(anatomy_ZYX, np.uint8))
    return Scene(REGIONS.index(subject.region), anatomy, (0.0, 0.0, 0.0), (step[0], step[1], step[2]), canvas)
