"""The noise schedule and the arithmetic of q(x_t | x_0), in fp32 from tables made in fp64 (SPEC §3.3).

t runs 0 … T−1; every σ is on the [-1, 1] scale. ᾱ_999 is 2.4e-9: half precision cannot hold it, so all functions here
compute and answer in float32 whatever the autocast around them.
"""

import math

import torch
from torch import Tensor

Time = int | Tensor  # one t for the whole batch, or one per sample (B)


class Schedule:
    """The cosine schedule of Nichol and Dhariwal (2021), s = 0.008, β clipped at 0.999.

    `alpha_bar_T` is ᾱ_t as float32 (T); σ̄_t = √(1 − ᾱ_t)/√ᾱ_t is the noise level of x_t/√ᾱ_t.
    """

    def __init__(self, timesteps: int = 1000) -> None:
        self.timesteps = timesteps
        alpha_bar = _cosine_alpha_bar(timesteps)
        self._signal_T = alpha_bar.sqrt()
        self._noise_T = (1 - alpha_bar).sqrt()
        self._sigma_bar_T = self._noise_T / self._signal_T
        self.alpha_bar_T = alpha_bar.float()
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def sigma_bar(self, t: int) -> float:
        """σ̄_t = √(1 − ᾱ_t)/√ᾱ_t."""
        return float(self._sigma_bar_T[t])

    def nearest_t(self, sigma: float) -> int:
        """The t whose σ̄_t is nearest to sigma: 87 for 0.15."""
        return int((self._sigma_bar_T - sigma).abs().argmin())

    def coefficients(self, t: Time, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t) as float32 on the device of `like`, shaped to multiply it (B or 1 first, then ones)."""
        signal_T, noise_T = self._tables(like.device)
        index, shape = torch.as_tensor(t, device=like.device).reshape(-1), (-1, *[1] * (like.ndim - 1))
        return signal_T[index].reshape(shape), noise_T[index].reshape(shape)

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) in float32 on a device, so that no step waits for it."""
        if device not in self._on_device:
            self._on_device[device] = self._signal_T.float().to(device), self._noise_T.float().to(device)
        return self._on_device[device]

    def add_noise(self, x0: Tensor, noise: Tensor, t: Time) -> Tensor:
        """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, float32, in the shape of x0 (B first)."""
        signal, sigma = self.coefficients(t, x0)
        return signal * x0.float() + sigma * noise.float()

    def predict_x0(self, x_t: Tensor, eps: Tensor, t: Time, clamp: bool = True) -> Tensor:
        """x̂_0 = (x_t − √(1 − ᾱ_t) ε̂)/√ᾱ_t, float32, clamped to [-1, 1] unless told otherwise."""
        signal, sigma = self.coefficients(t, x_t)
        x0 = (x_t.float() - sigma * eps.float()) / signal
        return x0.clamp(-1, 1) if clamp else x0

    def predict_eps(self, x_t: Tensor, x0: Tensor, t: Time) -> Tensor:
        """ε̃ = (x_t − √ᾱ_t x_0)/√(1 − ᾱ_t), float32: the noise that x0 would need to become x_t."""
        signal, sigma = self.coefficients(t, x_t)
        return (x_t.float() - signal * x0.float()) / sigma


def _cosine_alpha_bar(timesteps: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """ᾱ_t for t = 0 … T−1 in fp64; the running product of 1 − β_t with β_t from f(t) = cos²((t/T + s)/(1 + s)·π/2)."""
    x = torch.linspace(0, timesteps, timesteps + 1, dtype=torch.float64)
    f = torch.cos((x / timesteps + s) / (1 + s) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=max_beta)
    return torch.cumprod(1 - beta, 0)
