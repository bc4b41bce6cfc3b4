"""Noise estimates of a whole field by sliding windows: what a sampler asks, answered by a network that sees one patch.

What the network is told (region, anatomy, place, control) lies in the scenes of the NoisePredictor. Every call merges
the windows' noise estimates, so that a sampler updates the whole field once a step (SPEC §6.1). Fields live on the
[-1, 1] scale, in float32.

Letters: B batch (one field each), W windows of one network call, C channels; Z Y X space.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from preprocessing.anatomy import UNKNOWN
from training.conditioning import Conditions, coordinates, stack_axes
from training.diffusion import Schedule, Time
from training.precision import Precision, autocast

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """What is known of one field: its region, its anatomy map, where it lies on the region's canvas, its control.

    `region` is an index into REGIONS or NULL_REGION. `start_zyx` is where the field begins on the (padded) canvas of
    `canvas_zyx` level-0 voxels, `step_zyx` how many of those a voxel of the field spans. The network is not asked about
    windows without any `body_ZYX` (boolean): there x_0 is `outside_ZYX`. Both are given or none.
    """

    region: int
    anatomy_ZYX: Tensor
    start_zyx: Triple
    step_zyx: Triple
    canvas_zyx: tuple[int, int, int]
    control_CZYX: Tensor | None = None
    body_ZYX: Tensor | None = None
    outside_ZYX: Tensor | None = None


def unknown_anatomy(shape_zyx: Sequence[int]) -> Tensor:
    """The map (Z, Y, X) of a field whose anatomy nobody knows: 119 everywhere."""
    return torch.full(tuple(shape_zyx), UNKNOWN, dtype=torch.uint8)


def window_starts(size: int, patch: int, overlap: float, shift: float = 0.0) -> list[int]:
    """Where windows begin on an axis: a regular stride, and one flush with the end.

    `shift` in [-1, 1] moves all but the first and the last, by patch/8 at most and never so far that one voxel is in
    no window.

    Raises:
        ValueError: the axis is shorter than a window, or the overlap is not in [0, 1).
    """
    if size < patch:
        raise ValueError(f"a field of {size} voxels is smaller than a window of {patch}; pad it first")
    if not 0 <= overlap < 1:
        raise ValueError(f"the overlap of windows must lie in [0, 1), not {overlap}")
    stride = max(1, round(patch * (1 - overlap)))
    last, offset = size - patch, round(shift * _room(patch, stride))
    return [0, *(min(max(start + offset, 0), last) for start in range(stride, last, stride)), *([last] if last else [])]


def _room(patch: int, stride: int) -> int:
    """How far windows may be moved."""
    return min(patch // 8, patch - stride)


def window_weights(size: int, patch: int, starts: Sequence[int]) -> list[Tensor]:
    """Gaussian weights (patch) of each window of an axis, σ = patch/8, normalised: at every voxel they sum to 1.

    The weight of a three-dimensional window is the product over the axes; so their sum is 1 as well.
    """
    centred = torch.arange(patch, dtype=torch.float64) - (patch - 1) / 2
    bell = torch.exp(-0.5 * (centred / (0.125 * patch)) ** 2)
    total = torch.zeros(size, dtype=torch.float64)
    for start in starts:
        total[start : start + patch] += bell
    return [(bell / total[start : start + patch]).float() for start in starts]


@dataclass(frozen=True)
class _Window:
    """One window of one field: which field, where, and its merging weights along each axis."""

    field: int
    place: tuple[slice, slice, slice]
    weights: tuple[Tensor, Tensor, Tensor]

    def weight_ZYX(self, device: torch.device) -> Tensor:  # noqa: N802 - shape letters
        weight_Z, weight_Y, weight_X = (weight.to(device) for weight in self.weights)
        return weight_Z[:, None, None] * weight_Y[:, None] * weight_X


class NoisePredictor:
    """ε̂ of several equally large fields at once, each with its own scene, from a network that sees one patch.

    `evaluations` counts batched network calls (two per batch where guidance is not 1). `precision` "bf16" runs the
    network under autocast where the device is fast at it; merging is always float32. With guidance g,
    ε̂ = ε_null + g·(ε − ε_null), null being region null and anatomy unknown. A window without body contributes the noise
    that belongs to its known x_0 under the `schedule`. With a `grid_seed` every call moves the windows at random, as
    many as before, so that what a network does near their borders does not add up over the steps.

    Raises:
        ValueError: there are no scenes, they differ in shape, or they are smaller than the patch; or a body is given
            and no schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        scenes: Sequence[Scene],
        patch: int,
        overlap: float = 0.5,
        max_batch: int = 8,
        *,
        guidance: float = 1.0,
        precision: Precision = "fp32",
        device: torch.device | str = "cpu",
        on_evaluation: Callable[[], None] | None = None,
        schedule: Schedule | None = None,
        grid_seed: int | None = None,
    ) -> None:
        shapes = {tuple(scene.anatomy_ZYX.shape) for scene in scenes}
        if len(shapes) != 1:
            raise ValueError(f"the scenes of one predictor must have one shape, not {sorted(shapes)}")
        self.network, self.scenes, self.patch = network, tuple(scenes), patch
        self.shape_zyx: tuple[int, ...] = shapes.pop()
        self.max_batch, self.guidance, self.precision = max_batch, guidance, precision
        self.device, self.on_evaluation = torch.device(device), on_evaluation
        self.evaluations = 0
        self._schedule, self._overlap = schedule, overlap
        self._grid = None if grid_seed is None else np.random.default_rng(grid_seed)
        self._still = list(_windows(len(scenes), self.shape_zyx, patch, overlap))
        reach = patch // 8 if self._grid else 0
        self._asked = [_holds_body(scenes[window.field], window, reach) for window in self._still]
        if not all(self._asked) and (schedule is None or any(scene.outside_ZYX is None for scene in scenes)):
            raise ValueError("windows without body need the schedule and x_0 outside the body, to know their noise")

    @property
    def evaluations_per_call(self) -> int:
        """How many batched network calls one noise estimate takes."""
        return -(-sum(self._asked) // self.max_batch) * (1 if self.guidance == 1 else 2)

    @torch.no_grad()
    def __call__(self, x_BZYX: Tensor, t: Time) -> Tensor:
        """The merged noise estimate, float32, in the shape of x; t is one number or one per field (B)."""
        if tuple(x_BZYX.shape) != (len(self.scenes), *self.shape_zyx):
            raise ValueError(f"x is {tuple(x_BZYX.shape)}, the scenes are {(len(self.scenes), *self.shape_zyx)}")
        t_B = torch.as_tensor(t).reshape(-1).expand(len(self.scenes))
        eps_BZYX = torch.zeros_like(x_BZYX, dtype=torch.float32)
        asked, known = self._windows()
        for windows in _batches(asked, self.max_batch):
            for window, eps_ZYX in zip(windows, self._evaluate(x_BZYX, t_B, windows), strict=True):
                merged = window.weight_ZYX(x_BZYX.device) * eps_ZYX.to(x_BZYX.device)
                eps_BZYX[window.field][window.place] += merged
        for window in known:
            x_ZYX, t = x_BZYX[window.field][window.place], t_B[window.field]
            eps_BZYX[window.field][window.place] += window.weight_ZYX(x_BZYX.device) * self._known(window, x_ZYX, t)
        return eps_BZYX

    def _windows(self) -> tuple[list[_Window], list[_Window]]:
        """The windows of one call: those that the network is asked about, and those without body."""
        moved = self._still
        if self._grid:
            shifts = self._grid.uniform(-1, 1, 3).tolist()
            moved = list(_windows(len(self.scenes), self.shape_zyx, self.patch, self._overlap, shifts))
        asked = [window for window, is_asked in zip(moved, self._asked, strict=True) if is_asked]
        return asked, [window for window, is_asked in zip(moved, self._asked, strict=True) if not is_asked]

    def _known(self, window: _Window, x_ZYX: Tensor, t: Tensor) -> Tensor:
        """The noise in a window whose x_0 is known."""
        outside_ZYX = self.scenes[window.field].outside_ZYX
        assert self._schedule is not None
        assert outside_ZYX is not None
        return self._schedule.predict_eps(x_ZYX, outside_ZYX[window.place].to(x_ZYX.device), t)

    def _evaluate(self, x_BZYX: Tensor, t_B: Tensor, windows: Sequence[_Window]) -> Tensor:
        x_W1ZYX = torch.stack([x_BZYX[w.field][w.place] for w in windows])[:, None].float().to(self.device)
        t_W = t_B[[w.field for w in windows]].to(self.device)
        conditions, control = self._conditions(windows).to(self.device), self._control(windows)
        eps = self._network(x_W1ZYX, t_W, conditions, control)
        if self.guidance != 1:
            null = self._network(x_W1ZYX, t_W, conditions.without_region().without_anatomy(), control)
            eps = null + self.guidance * (eps - null)
        return eps[:, 0]

    def _network(self, x: Tensor, t_W: Tensor, conditions: Conditions, control: Tensor | None) -> Tensor:
        with autocast(self.precision, self.device):
            eps = self.network(x, t_W, conditions, control)
        self.evaluations += 1
        if self.on_evaluation:
            self.on_evaluation()
        return eps.float()

    def _conditions(self, windows: Sequence[_Window]) -> Conditions:
        scenes = [self.scenes[w.field] for w in windows]
        places = [
            [start + s.start * step for start, step, s in zip(scene.start_zyx, scene.step_zyx, w.place, strict=True)]
            for scene, w in zip(scenes, windows, strict=True)
        ]
        return Conditions(
            torch.tensor([scene.region for scene in scenes]),
            torch.stack([scene.anatomy_ZYX[w.place] for scene, w in zip(scenes, windows, strict=True)]),
            stack_axes(
                [
                    coordinates(place, scene.step_zyx, scene.canvas_zyx, [self.patch] * 3)
                    for place, scene in zip(places, scenes, strict=True)
                ]
            ),
        )

    def _control(self, windows: Sequence[_Window]) -> Tensor | None:
        controls = [self.scenes[w.field].control_CZYX for w in windows]
        cut = [c[(slice(None), *w.place)] for c, w in zip(controls, windows, strict=True) if c is not None]
        if len(cut) not in (0, len(windows)):
            raise ValueError("either every scene of a predictor has a control or none has")
        return torch.stack(cut).float().to(self.device) if cut else None


def _windows(
    fields: int, shape_zyx: Sequence[int], patch: int, overlap: float, shifts: Sequence[float] = (0, 0, 0)
) -> Iterator[_Window]:
    axes = []
    for size, shift in zip(shape_zyx, shifts, strict=True):
        starts = window_starts(size, patch, overlap, shift)
        axes.append(list(zip(starts, window_weights(size, patch, starts), strict=True)))
    for field in range(fields):
        for (z, weight_Z), (y, weight_Y), (x, weight_X) in itertools.product(*axes):
            place = (slice(z, z + patch), slice(y, y + patch), slice(x, x + patch))
            yield _Window(field, place, (weight_Z, weight_Y, weight_X))


def _holds_body(scene: Scene, window: _Window, reach: int) -> bool:
    """Whether there is body in a window, wherever it is moved to within `reach` voxels."""
    around = tuple(slice(max(0, part.start - reach), part.stop + reach) for part in window.place)
    return scene.body_ZYX is None or bool(scene.body_ZYX[around].any())


def _batches(windows: Sequence[_Window], size: int) -> Iterator[Sequence[_Window]]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]
