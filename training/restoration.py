"""Restoration with a diffusion prior: the posterior mean, and DiffPIR with closed-form data steps (SPEC §6.2).

The problem is y = Hx + n, n of standard deviation σ_n. Every σ is on the [-1, 1] scale and ρ_t = λ σ_n²/σ̄_t². A data
step is a function (x_0, ρ) -> argmin_x ‖y − Hx‖² + ρ‖x − x_0‖²; each one here is exact, checked against a dense solve.

Letters: B batch; Z Y X space; K slices of low resolution, K = Z/s.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.regions import Window
from training.diffusion import Schedule, Time
from training.sampling import OnStep, Predict, draw_noise

FP32_ROUNDING = 1e-7
DataStep = Callable[[Tensor, float], Tensor]


def posterior_mean(predict: Predict, y_BZYX: Tensor, sigma: float | Sequence[float], schedule: Schedule) -> Tensor:
    """E[x_0 | y] in one evaluation: y = x_0 + σn is the state x_t/√ᾱ_t of the t with σ̄_t nearest to σ.

    sigma is one number or one per field of the batch.
    """
    t = noise_times(sigma, schedule)
    signal, _ = schedule.coefficients(t, y_BZYX)
    x_t = signal * y_BZYX
    return schedule.predict_x0(x_t, predict(x_t, t), t)


def noise_times(sigma: float | Sequence[float], schedule: Schedule) -> Time:
    """The t nearest to sigma: a number for a number, a tensor (B) for several."""
    if isinstance(sigma, Sequence):
        return torch.tensor([schedule.nearest_t(s) for s in sigma])
    return schedule.nearest_t(sigma)


def consistent_start(
    y: Tensor, sigma_n: float, s: int, schedule: Schedule, generator: torch.Generator | None = None
) -> Tensor:
    """x_s for H = I: √ᾱ_s·y + √max(0, 1 − ᾱ_s − ᾱ_s σ_n²)·z, so no noise is added where σ̄_s = σ_n."""
    signal, noise = (float(c) for c in schedule.coefficients(s, torch.zeros(1)))
    missing = max(0.0, noise**2 - signal**2 * sigma_n**2)
    return signal * y + (missing**0.5 * draw_noise(y, generator) if missing > FP32_ROUNDING else 0.0)


def noise_start(y: Tensor, s: int, schedule: Schedule, generator: torch.Generator | None = None) -> Tensor:
    """x_s = √ᾱ_s·y + √(1 − ᾱ_s)·z, for a y (an interpolated image) that matches no noise level."""
    return schedule.add_noise(y, draw_noise(y, generator), s)


def diffpir(
    predict: Predict,
    x_BZYX: Tensor,
    data_step: DataStep,
    *,
    sigma_n: float,
    lam: float,
    timesteps: Sequence[int],
    schedule: Schedule,
    zeta: float = 0.0,
    generator: torch.Generator | None = None,
    final_data_step: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0 by DiffPIR (Zhu et al. 2023) from x at timesteps[0], with η = 0.

    Each step: x̂_0 from the network; the data step with ρ_t = λσ_n²/σ̄_t²; the effective noise ε̃ of its answer; and
    x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s)·(√(1−ζ) ε̃ + √ζ z). ζ = 0 is deterministic. The last step answers with the network's
    x̂_0, as the published method does, or with its data step's where `final_data_step` is set.
    """
    x, x0 = x_BZYX, x_BZYX
    for t, s in itertools.zip_longest(timesteps, timesteps[1:]):
        x0 = schedule.predict_x0(x, predict(x, t), t)
        if s is not None or final_data_step:
            x0 = data_step(x0, lam * sigma_n**2 / schedule.sigma_bar(t) ** 2)
        if on_step:
            on_step(t, x0)
        if s is not None:
            eps = (1 - zeta) ** 0.5 * schedule.predict_eps(x, x0, t)
            eps = eps + zeta**0.5 * draw_noise(x, generator) if zeta else eps
            x = schedule.add_noise(x0, eps, s)
    return x0


def identity_step(y: Tensor) -> DataStep:
    """H = I: (y + ρ x_0)/(1 + ρ)."""
    return lambda x0, rho: (y + rho * x0) / (1 + rho)


def mask_step(y: Tensor, mask: Tensor) -> DataStep:
    """H = m⊙ with m in {0, 1}: (m⊙y + ρ x_0)/(m + ρ); needs ρ > 0."""
    return lambda x0, rho: (mask * y + rho * x0) / (mask + rho)


def depth_average(x_BZYX: Tensor, factor: int) -> Tensor:
    """A: the mean of every `factor` consecutive slices, (B, Z, Y, X) -> (B, Z/factor, Y, X).

    Raises:
        ValueError: Z is not a multiple of the factor.
    """
    depth = x_BZYX.shape[-3]
    if depth % factor:
        raise ValueError(f"{depth} slices cannot be averaged by {factor}; crop or pad to a multiple")
    return x_BZYX.unflatten(-3, (depth // factor, factor)).mean(-3)


def depth_average_step(y_BKYX: Tensor, factor: int) -> DataStep:
    """H = A, the mean of s slices (AAᵀ = I/s): x_0 + repeat_s(y − A x_0)/(1 + s·ρ)."""

    def step(x0: Tensor, rho: float) -> Tensor:
        residual = y_BKYX - depth_average(x0, factor)
        return x0 + residual.repeat_interleave(factor, -3) / (1 + factor * rho)

    return step


def depth_blur(x_BZYX: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Circular convolution along depth with a centred odd kernel, then every stride-th slice from the first."""
    spectrum = torch.fft.fft(x_BZYX, dim=-3) * _transfer(kernel, x_BZYX)
    return torch.fft.ifft(spectrum, dim=-3).real[..., ::stride, :, :]


def depth_blur_step(y_BKYX: Tensor, kernel: Tensor, stride: int) -> DataStep:
    """H = blur along depth and stride s, solved in the Fourier domain (Zhang et al. 2020, USRNet); needs ρ > 0.

    With K = F(k), d = K̄·F(y↑) + ρF(x_0), y↑ zero-filled, ⇓ the mean over the s aliased bands and ⊙ tiling them back:
    x̂_0 = F⁻¹{(1/ρ)·[d − K̄ ⊙ ((K d)⇓/((|K|²)⇓ + ρ))]}. The boundary is circular: pad by reflection first.
    """

    def step(x0: Tensor, rho: float) -> Tensor:
        transfer = _transfer(kernel, x0)
        filled = torch.zeros_like(x0)
        filled[..., ::stride, :, :] = y_BKYX
        d = transfer.conj() * torch.fft.fft(filled, dim=-3) + rho * torch.fft.fft(x0, dim=-3)
        power = _alias(transfer.abs() ** 2, stride)
        inverse = _alias(transfer * d, stride) / (power + rho)
        tiled = torch.cat([inverse] * stride, -3)
        return torch.fft.ifft((d - transfer.conj() * tiled) / rho, dim=-3).real

    return step


def _transfer(kernel: Tensor, like: Tensor) -> Tensor:
    """F(k) along depth, shaped (Z, 1, 1), of a centred odd kernel placed circularly."""
    depth, half = like.shape[-3], len(kernel) // 2
    if len(kernel) % 2 == 0 or len(kernel) > depth:
        raise ValueError(f"a kernel along {depth} slices must have an odd length up to {depth}, not {len(kernel)}")
    placed = torch.zeros(depth, dtype=like.dtype, device=like.device)
    placed[: len(kernel)] = kernel.to(like)
    return torch.fft.fft(placed.roll(-half))[:, None, None]


def _alias(spectrum: Tensor, stride: int) -> Tensor:
    """The mean over the stride bands that fold onto each other, (…, Z, Y, X) -> (…, Z/stride, Y, X)."""
    return spectrum.unflatten(-3, (stride, -1)).mean(-4)


def back_to_hu(source_hu_ZYX: NDArray, x_ZYX: NDArray, window: Window) -> NDArray[np.float32]:
    """A result on [-1, 1] as HU: source + (x̂ − clip(x)) in HU where the source lies inside the window.

    Voxels outside the window keep their source HU, because the model never saw them.
    """
    source = np.asarray(source_hu_ZYX, np.float32)
    clipped = window.normalise(source)
    change = (np.asarray(x_ZYX, np.float32) - clipped) * np.float32(window.hu_per_unit)
    return np.where(np.abs(clipped) < 1, source + change, source)
