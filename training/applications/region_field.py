"""A whole region of a scan as one field on [-1, 1], and what the network is told of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from preprocessing.regions import REGIONS, WINDOWS, RegionExtent, Window
from preprocessing.store import StoredCase
from training.applications.scan import Change
from training.crops import Canvas, read_box, region_canvas
from training.diffusion import Schedule
from training.models import Model
from training.sampling import NoisePredictor, Scene, unknown_anatomy

OnEvaluation = Callable[[int, int], None]
"""Called with the network evaluations made and those to come in all."""
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class RegionField:
    """One region of a stored case, padded with air to at least a patch: the canvas is the field."""

    stored: StoredCase
    extent: RegionExtent
    canvas: Canvas

    @staticmethod
    def of(stored: StoredCase, extent: RegionExtent, patch: int) -> "RegionField":
        """The field of a region for a network that sees patches."""
        return RegionField(stored, extent, region_canvas(stored.geometry(0).shape, extent, patch))

    @property
    def window(self) -> Window:
        """The region's HU window."""
        return WINDOWS[self.extent.name]

    def read(self, name: str) -> NDArray:
        """The whole field of `image` (HU), `anatomy` or `lesion`."""
        return read_box(self.stored, self.canvas, (0, 0, 0), name, self.canvas.canvas_zyx)

    def normalised(self) -> NDArray[np.float32]:
        """The image on [-1, 1]."""
        return self.window.normalise(self.read("image"))

    def body(self) -> NDArray[np.bool_]:
        """Where the body is."""
        return self.read("anatomy") > 0

    def scene(self, anatomy_ZYX: NDArray | None = None, control_CZYX: NDArray | None = None) -> Scene:
        """What the network is told; without a map, that anatomy is unknown. Away from the body the image stays."""
        shape = self.canvas.canvas_zyx
        known = unknown_anatomy(shape) if anatomy_ZYX is None else torch.as_tensor(np.asarray(anatomy_ZYX, np.uint8))
        control = None if control_CZYX is None else torch.as_tensor(np.asarray(control_CZYX, np.float32))
        return Scene(
            region=REGIONS.index(self.extent.name),
            anatomy_ZYX=known,
            start_zyx=(0.0, 0.0, 0.0),
            step_zyx=(1.0, 1.0, 1.0),
            canvas_zyx=shape,
            control_CZYX=control,
            body_ZYX=torch.as_tensor(self.body()),
            outside_ZYX=torch.as_tensor(self.normalised()),
        )

    def inner(self, field_ZYX: NDArray) -> NDArray:
        """A field without its padding: the region's own voxels."""
        start = self.canvas.pad_zyx
        return field_ZYX[tuple(slice(s, s + n) for s, n in zip(start, self.canvas.shape_zyx, strict=True))]

    def change(self, before_ZYX: NDArray, after_ZYX: NDArray) -> Change:
        """What a result changes, in HU, where the image lies inside the window (SPEC §6.2)."""
        inside = np.abs(before_ZYX) < 1
        difference = np.where(inside, np.clip(after_ZYX, -1, 1) - before_ZYX, 0) * np.float32(self.window.hu_per_unit)
        return Change(self.extent, self.inner(difference).astype(np.float32))


def predictor(model: Model, scene: Scene, overlap: float, calls: int, on_evaluation: OnEvaluation) -> NoisePredictor:
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
        precision="bf16",
        device=next(model.network.parameters()).device,
        on_evaluation=count,
        schedule=Schedule(model.config.timesteps),
    )
    return made
