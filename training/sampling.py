"""Samplers: how a volume is drawn from noise estimates, over any descending sub-sequence of t, behind one interface.

A sampler only ever sees predict(x_BZYX, t) -> eps_BZYX (`training.sliding_windows`), once per t. Fields live on the
[-1, 1] scale, in float32. Letters: B batch; Z Y X space.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from training.config import SamplerName
from training.diffusion import Schedule, Time

Predict = Callable[[Tensor, Time], Tensor]
OnStep = Callable[[int, Tensor], None]  # t and x̂_0


class Sampler(Protocol):
    """x̂_0 (B, Z, Y, X) from x at timesteps[0]; the generator draws what the sampler adds, if anything."""

    def __call__(  # noqa: D102 - the class says it
        self,
        predict: Predict,
        x_BZYX: Tensor,
        timesteps: Sequence[int],
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor: ...


def uniform_timesteps(start: int, steps: int) -> tuple[int, ...]:
    """At most `steps` descending t from start to 0, evenly spaced, each once."""
    values = torch.linspace(start, 0, max(1, min(steps, start + 1)), dtype=torch.float64)
    return tuple(dict.fromkeys(round(v) for v in values.tolist()))


def log_snr_timesteps(start: int, steps: int, schedule: Schedule) -> tuple[int, ...]:
    """At most `steps` descending t from start to 0, evenly spaced in ln(√ᾱ/√(1−ᾱ)), each once."""
    first, last = (math.log(schedule.sigma_bar(t)) for t in (start, 0))
    levels = torch.linspace(first, last, max(1, min(steps, start + 1)), dtype=torch.float64)
    return tuple(dict.fromkeys((start, *(schedule.nearest_t(math.exp(level)) for level in levels.tolist()[1:]))))


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
    *,
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
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0 by DDPM's ancestral sampling over a descending sub-sequence of t, each step from the strided posterior."""

    def step(x_t: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        mean, variance = posterior(x_t, x0, t, s, schedule)
        return mean + variance**0.5 * draw_noise(x_t, generator)

    return _descend(predict, x_BZYX, timesteps, schedule, step, on_step)


def dpm_solver(
    predict: Predict,
    x_BZYX: Tensor,
    timesteps: Sequence[int],
    schedule: Schedule,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0 by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one evaluation a step, deterministic.

    With λ = ln(√ᾱ/√(1−ᾱ)), h = λ_s − λ_t and h', x̂_0' those of the step before: D = x̂_0 + h/(2h')·(x̂_0 − x̂_0') and
    x_s = √((1−ᾱ_s)/(1−ᾱ_t)) x_t + √ᾱ_s (1 − e^−h) D. The first step has D = x̂_0, which is DDIM's.
    """
    before: tuple[Tensor, float] | None = None

    def step(x_t: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        nonlocal before
        (signal_s, noise_s), (_, noise_t) = _levels(s, schedule), _levels(t, schedule)
        h = math.log(schedule.sigma_bar(t) / schedule.sigma_bar(s))
        towards = x0 if before is None else x0 + h / (2 * before[1]) * (x0 - before[0])
        before = x0, h
        return noise_s / noise_t * x_t - signal_s * math.expm1(-h) * towards

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


SAMPLERS: Mapping[SamplerName, Sampler] = {"ddim": ddim, "ddpm": ancestral, "dpm-solver++": dpm_solver}
