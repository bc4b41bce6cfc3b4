"""A region of a scan, or a box of it, as one field on [-1, 1], and what the network is told of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.regions import REGIONS, WINDOWS, RegionExtent, Window
from preprocessing.store import StoredCase
from training.applications.scan import Change
from training.crops import Canvas, read_box, region_canvas
from training.diffusion import Schedule
from training.models import Model
from training.sliding_windows import NoisePredictor, Scene, unknown_anatomy

Triple = tuple[int, int, int]
OnEvaluation = Callable[[int, int], None]
"""Called with the network evaluations made and those to come in all."""
WINDOWS_AT_ONCE = 4


def unheard(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class RegionField:
    """A box of one region of a stored case; `start_zyx` is where it begins on the region's canvas.

    The canvas is the region, padded with air to at least a patch.
    """

    stored: StoredCase
    extent: RegionExtent
    canvas: Canvas
    start_zyx: Triple
    shape_zyx: Triple

    @staticmethod
    def of(stored: StoredCase, extent: RegionExtent, patch: int) -> "RegionField":
        """The whole canvas, for a network that sees patches."""
        canvas = region_canvas(stored.geometry(0).shape, extent, patch)
        return RegionField(stored, extent, canvas, (0, 0, 0), canvas.canvas_zyx)

    @staticmethod
    def around(
        stored: StoredCase, extent: RegionExtent, patch: int, mask_ZYX: NDArray[np.bool_], margin: int
    ) -> "RegionField":
        """The box of at least a patch around a mask (of the whole stored volume) and a margin of voxels.

        Raises:
            ValueError: the mask is empty within the region.
        """
        whole = RegionField.of(stored, extent, patch)
        found = np.argwhere(mask_ZYX[extent.z_start : extent.z_stop])
        if not len(found):
            raise ValueError(f"the mask shows nothing within the {extent.name}")
        low = found.min(0) + whole.canvas.pad_zyx - margin
        high = found.max(0) + 1 + whole.canvas.pad_zyx + margin
        size = np.minimum(np.maximum(high - low, patch), whole.shape_zyx)
        start = np.clip((low + high - size) // 2, 0, np.asarray(whole.shape_zyx) - size)
        return replace(whole, start_zyx=_triple(start), shape_zyx=_triple(size))

    @property
    def window(self) -> Window:
        """The region's HU window."""
        return WINDOWS[self.extent.name]

    def read(self, name: str) -> NDArray:
        """The field of `image` (HU), `anatomy` or `lesion`."""
        return read_box(self.stored, self.canvas, self.start_zyx, name, self.shape_zyx)

    def normalised(self) -> NDArray[np.float32]:
        """The image on [-1, 1]."""
        return self.window.normalise(self.read("image"))

    def body(self) -> NDArray[np.bool_]:
        """Where the body is."""
        return self.read("anatomy") > 0

    def scene(self, anatomy_ZYX: NDArray | None = None, control_CZYX: NDArray | None = None) -> Scene:
        """What the network is told; without a map, that anatomy is unknown. Away from the body the image stays."""
        named = None if anatomy_ZYX is None else torch.as_tensor(np.asarray(anatomy_ZYX, np.uint8))
        control = None if control_CZYX is None else torch.as_tensor(np.asarray(control_CZYX, np.float32))
        return Scene(
            region=REGIONS.index(self.extent.name),
            anatomy_ZYX=unknown_anatomy(self.shape_zyx) if named is None else named,
            start_zyx=self.start_zyx,
            step_zyx=(1.0, 1.0, 1.0),
            canvas_zyx=self.canvas.canvas_zyx,
            control_CZYX=control,
            body_ZYX=torch.as_tensor(self.body()),
            outside_ZYX=torch.as_tensor(self.normalised()),
        )

    def cut(self, volume_ZYX: NDArray) -> NDArray:
        """The field of any array on the whole stored grid; 0 in the padding."""
        region = volume_ZYX[self.extent.z_start : self.extent.z_stop]
        field = np.zeros(self.shape_zyx, region.dtype)
        here, there = self._overlap()
        field[here] = region[there]
        return field

    def spread(self, field_ZYX: NDArray[np.float32]) -> NDArray[np.float32]:
        """A field on all of the region's own voxels; 0 where it has none."""
        region = np.zeros(self.canvas.shape_zyx, np.float32)
        here, there = self._overlap()
        region[there] = field_ZYX[here]
        return region

    def change(self, before_ZYX: NDArray, after_ZYX: NDArray) -> Change:
        """What a result changes, in HU, where the image lies inside the window (SPEC §6.2)."""
        inside = np.abs(before_ZYX) < 1
        difference = np.where(inside, np.clip(after_ZYX, -1, 1) - before_ZYX, 0) * np.float32(self.window.hu_per_unit)
        return Change(self.extent, self.spread(difference.astype(np.float32)))

    def _overlap(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of the field that holds voxels of the region, and the part of the region that these are."""
        start = np.asarray(self.start_zyx) - self.canvas.pad_zyx
        low = np.maximum(start, 0)
        high = np.minimum(start + self.shape_zyx, self.canvas.shape_zyx)
        here = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        return here, tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def predictor(
    model: Model,
    scene: Scene,
    overlap: float,
    calls: int,
    on_evaluation: OnEvaluation,
    *,
    guidance: float = 1.0,
    grid_seed: int | None = None,
) -> NoisePredictor:
    """Noise estimates of one field by a model; `calls` is how often it will be asked."""
    done = 0
    made: NoisePredictor

    def count() -> None:
        nonlocal done
        done += 1
        on_evaluation(done, calls * made.evaluations_per_call)

    made = NoisePredictor(
        model.network,
        [scene],
        model.config.patch,
        overlap,
        WINDOWS_AT_ONCE,
        guidance=guidance,
        precision="bf16",
        device=next(model.network.parameters()).device,
        on_evaluation=count,
        schedule=Schedule(model.config.timesteps),
        grid_seed=grid_seed,
    )
    return made


def _triple(values: NDArray) -> Triple:
    z, y, x = (int(v) for v in values)
    return z, y, x
