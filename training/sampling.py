"""How a volume is drawn: noise estimates of a whole field by sliding windows, and the samplers that use them.

A sampler only ever sees predict(x_BZYX, t) -> eps_BZYX; what the network is told (region, anatomy, place, control) lies
in the scenes of the NoisePredictor. Every step merges the windows' noise estimates and then updates the whole field
once (SPEC §6.1). Fields live on the [-1, 1] scale, in float32.

Letters: B batch (one field each), W windows of one network call, C channels; Z Y X space.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from preprocessing.anatomy import UNKNOWN
from training.conditioning import Conditions, coordinates, stack_axes
from training.diffusion import Schedule, Time
from training.precision import Precision, autocast

Predict = Callable[[Tensor, Time], Tensor]
OnStep = Callable[[int, Tensor], None]  # t and x̂_0
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


def window_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Where windows begin on an axis: a regular stride, and one flush with the end.

    Raises:
        ValueError: the axis is shorter than a window, or the overlap is not in [0, 1).
    """
    if size < patch:
        raise ValueError(f"a field of {size} voxels is smaller than a window of {patch}; pad it first")
    if not 0 <= overlap < 1:
        raise ValueError(f"the overlap of windows must lie in [0, 1), not {overlap}")
    stride = max(1, round(patch * (1 - overlap)))
    return [*range(0, size - patch, stride), size - patch]


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
    that belongs to its known x_0 under the `schedule`.

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
    ) -> None:
        shapes = {tuple(scene.anatomy_ZYX.shape) for scene in scenes}
        if len(shapes) != 1:
            raise ValueError(f"the scenes of one predictor must have one shape, not {sorted(shapes)}")
        self.network, self.scenes, self.patch = network, tuple(scenes), patch
        self.shape_zyx: tuple[int, ...] = shapes.pop()
        self.max_batch, self.guidance, self.precision = max_batch, guidance, precision
        self.device, self.on_evaluation = torch.device(device), on_evaluation
        self.evaluations = 0
        self._schedule = schedule
        every = list(_windows(len(scenes), self.shape_zyx, patch, overlap))
        self._windows = [window for window in every if _holds_body(scenes[window.field], window)]
        self._outside = [window for window in every if not _holds_body(scenes[window.field], window)]
        if self._outside and (schedule is None or any(scene.outside_ZYX is None for scene in scenes)):
            raise ValueError("windows without body need the schedule and x_0 outside the body, to know their noise")

    @property
    def evaluations_per_call(self) -> int:
        """How many batched network calls one noise estimate takes."""
        return -(-len(self._windows) // self.max_batch) * (1 if self.guidance == 1 else 2)

    @torch.no_grad()
    def __call__(self, x_BZYX: Tensor, t: Time) -> Tensor:
        """The merged noise estimate, float32, in the shape of x; t is one number or one per field (B)."""
        if tuple(x_BZYX.shape) != (len(self.scenes), *self.shape_zyx):
            raise ValueError(f"x is {tuple(x_BZYX.shape)}, the scenes are {(len(self.scenes), *self.shape_zyx)}")
        t_B = torch.as_tensor(t).reshape(-1).expand(len(self.scenes))
        eps_BZYX = torch.zeros_like(x_BZYX, dtype=torch.float32)
        for windows in _batches(self._windows, self.max_batch):
            for window, eps_ZYX in zip(windows, self._evaluate(x_BZYX, t_B, windows), strict=True):
                merged = window.weight_ZYX(x_BZYX.device) * eps_ZYX.to(x_BZYX.device)
                eps_BZYX[window.field][window.place] += merged
        for window in self._outside:
            x_ZYX, t = x_BZYX[window.field][window.place], t_B[window.field]
            eps_BZYX[window.field][window.place] += window.weight_ZYX(x_BZYX.device) * self._known(window, x_ZYX, t)
        return eps_BZYX

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


def _windows(fields: int, shape_zyx: Sequence[int], patch: int, overlap: float) -> Iterator[_Window]:
    axes = []
    for size in shape_zyx:
        starts = window_starts(size, patch, overlap)
        axes.append(list(zip(starts, window_weights(size, patch, starts), strict=True)))
    for field in range(fields):
        for (z, weight_Z), (y, weight_Y), (x, weight_X) in itertools.product(*axes):
            place = (slice(z, z + patch), slice(y, y + patch), slice(x, x + patch))
            yield _Window(field, place, (weight_Z, weight_Y, weight_X))


def _holds_body(scene: Scene, window: _Window) -> bool:
    return scene.body_ZYX is None or bool(scene.body_ZYX[window.place].any())


def _batches(windows: Sequence[_Window], size: int) -> Iterator[Sequence[_Window]]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]


def uniform_timesteps(start: int, steps: int) -> tuple[int, ...]:
    """At most `steps` descending t from start to 0, evenly spaced, each once."""
    values = torch.linspace(start, 0, max(1, min(steps, start + 1)), dtype=torch.float64)
    return tuple(dict.fromkeys(round(v) for v in values.tolist()))


def draw_noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape of `like`, drawn on the CPU so that devices agree."""
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.device)


def posterior(x_t: Tensor, x0: Tensor, t: int, s: int, schedule: Schedule) -> tuple[Tensor, float]:
    """Mean and variance of q(x_s | x_t, x_0) for any s < t, strided or not.

    With a = ᾱ_t/ᾱ_s: mean = √ᾱ_s (1−a)/(1−ᾱ_t) x_0 + √a (1−ᾱ_s)/(1−ᾱ_t) x_t, variance = (1−ᾱ_s)(1−a)/(1−ᾱ_t)
    (Gaussian conditioning; Ho et al. 2020, eq. 7, for s = t − 1). s must be the *scheduled* next step.
    """
    (signal_t, noise_t), (signal_s, noise_s) = _levels(t, schedule), _levels(s, schedule)
    lost = (noise_t**2 - noise_s**2) / signal_s**2  # 1 − a without cancellation at small t
    mean = signal_s * lost / noise_t**2 * x0 + signal_t / signal_s * noise_s**2 / noise_t**2 * x_t
    return mean, noise_s**2 * lost / noise_t**2


def _levels(t: int, schedule: Schedule) -> tuple[float, float]:
    signal, noise = schedule.coefficients(t, torch.zeros(1))
    return float(signal), float(noise)


def ddim(
    predict: Predict,
    x_BZYX: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0 by DDIM (Song et al. 2021, eq. 12) from x at timesteps[0] over a descending sub-sequence of t.

    x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s−σ²) ε̃ + σ z with σ² = η²·(1−ᾱ_s)(1−ᾱ_t/ᾱ_s)/(1−ᾱ_t); ε̃ belongs to the clamped x̂_0.
    η = 0 is deterministic, η = 1 draws from the strided posterior.
    """

    def step(x_t: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        variance = eta**2 * posterior(x_t, x0, t, s, schedule)[1]
        signal, noise = _levels(s, schedule)
        x_s = signal * x0 + max(0.0, noise**2 - variance) ** 0.5 * schedule.predict_eps(x_t, x0, t)
        return x_s + variance**0.5 * draw_noise(x_t, generator) if eta else x_s

    return _descend(predict, x_BZYX, timesteps, schedule, step, on_step)


def ancestral(
    predict: Predict,
    x_BZYX: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0 by DDPM's ancestral sampling over a descending sub-sequence of t, each step from the strided posterior."""

    def step(x_t: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        mean, variance = posterior(x_t, x0, t, s, schedule)
        return mean + variance**0.5 * draw_noise(x_t, generator)

    return _descend(predict, x_BZYX, timesteps, schedule, step, on_step)


def _descend(
    predict: Predict,
    x: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    step: Callable[[Tensor, Tensor, int, int], Tensor],
    on_step: OnStep | None,
) -> Tensor:
    x0 = x
    for t, s in itertools.zip_longest(timesteps, timesteps[1:]):
        x0 = schedule.predict_x0(x, predict(x, t), t)
        if on_step:
            on_step(t, x0)
        if s is not None:
            x = step(x, x0, t, s)
    return x0
