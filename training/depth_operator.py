"""How thick slices come from thin ones: a weighted mean along depth, its exact data step, and its calibration on pairs.

A scanner's slice profile is known only roughly (SPEC §6.2), so width, shape and place are chosen where pairs of thick
and thin slices of training cases are at hand. The operator is a small matrix along depth, so the data step is exact for
any profile and at the volume's ends.

Letters: B batch; Z thin slices, K thick ones; Y X in the plane.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize
from torch import Tensor

from infra.config import Config
from training.config import Profile
from training.restoration import DataStep

WIDTHS, OFFSETS = (0.3, 2.0), (-0.5, 0.5)  # of the factor: what calibration looks among
SIMPLEX = ((1.0, 0.0), (0.8, 0.1), (1.0, -0.2))  # width and offset, of the factor: where it begins
STEP = 0.05  # thin slices: what it tells apart
GAUSSIAN_WIDTH = 0.88  # of the factor: 4.4 mm for slices of 5 mm (head-phantom-thick-thin)
FWHM = 2.3548200450309493  # of a Gaussian of σ = 1
ENDS = 1  # thick slices at either end that calibration does not look at


class DepthOperator(Config):
    """Thick slice k is the mean of thin ones around factor·(k + ½) + offset, in thin slices from the volume's border.

    `width` (thin slices) is the extent of the plain mean, or the full width at half maximum of a Gaussian.
    """

    factor: int = Field(ge=2)
    profile: Profile = "mean"
    width: float = Field(gt=0)
    offset: float = 0.0

    @staticmethod
    def block(factor: int) -> "DepthOperator":
        """The mean of every `factor` slices."""
        return DepthOperator(factor=factor, width=factor)

    @staticmethod
    def of(profile: Profile, factor: int) -> "DepthOperator":
        """The block mean, or a Gaussian as wide as that of a scanner whose thick and thin slices were compared."""
        width = factor if profile == "mean" else GAUSSIAN_WIDTH * factor
        return DepthOperator(factor=factor, profile=profile, width=width)

    def matrix(self, depth: int) -> NDArray[np.float64]:
        """(K, Z) weights of `depth` thin slices; rows sum to 1, also where the profile reaches over an end.

        Raises:
            ValueError: the depth is no multiple of the factor.
        """
        if depth % self.factor:
            raise ValueError(f"{depth} slices are no multiple of {self.factor}; crop or pad them")
        centres = self.factor * (np.arange(depth // self.factor) + 0.5) + self.offset
        return profile_weights(centres, depth, self.profile, self.width)

    def apply(self, x_BZYX: Tensor) -> Tensor:
        """The thick slices (B, K, Y, X)."""
        weights = torch.as_tensor(self.matrix(x_BZYX.shape[-3])).to(x_BZYX)
        return torch.einsum("kz,...zyx->...kyx", weights, x_BZYX)

    def data_step(self, y_BKYX: Tensor) -> DataStep:
        """argmin_x ‖y − Ax‖² + ρ‖x − x_0‖² = x_0 + Aᵀ(AAᵀ + ρI)⁻¹(y − Ax_0), by one small solve along depth."""
        a = torch.as_tensor(self.matrix(y_BKYX.shape[-3] * self.factor))
        gram = a @ a.T

        def step(x0: Tensor, rho: float) -> Tensor:
            gain = a.T @ torch.linalg.inv(gram + rho * torch.eye(len(gram), dtype=gram.dtype))
            residual = y_BKYX - torch.einsum("kz,...zyx->...kyx", a.to(x0), x0)
            return x0 + torch.einsum("zk,...kyx->...zyx", gain.to(x0), residual)

        return step


def profile_weights(centres: Sequence[float] | NDArray, depth: int, profile: Profile, width: float) -> NDArray:
    """(K, depth) weights of thin slices [i, i + 1) in means around `centres`; rows sum to 1."""
    away = np.arange(depth) + 0.5 - np.asarray(centres, float)[:, None]
    if profile == "mean":
        weights = np.clip(np.minimum(away + 0.5, width / 2) - np.maximum(away - 0.5, -width / 2), 0, None)
    else:
        weights = np.exp(-0.5 * (away * FWHM / width) ** 2)
    return weights / weights.sum(1, keepdims=True)


def calibrate(pairs: Iterable[tuple[NDArray, NDArray]], factor: int) -> DepthOperator:
    """The operator that brings thin slices (Z, Y, X) nearest to their thick ones (K, Y, X), over all pairs.

    Width and offset of either profile are sought by the simplex of Nelder and Mead and rounded to a twentieth of a
    slice. Of equals the block mean is taken.

    Raises:
        ValueError: there is no pair, its depths do not fit the factor, or it has nothing between its ends.
    """
    known = list(pairs)
    if not known:
        raise ValueError("no pair of thick and thin slices to calibrate on")

    def total(operator: DepthOperator) -> float:
        return sum(misfit(operator, *pair) for pair in known)

    candidates = (DepthOperator.block(factor), _fitted("mean", factor, total), _fitted("gaussian", factor, total))
    return min(candidates, key=total)


def _fitted(profile: Profile, factor: int, total: Callable[[DepthOperator], float]) -> DepthOperator:
    def operator(of_factor: NDArray, step: float = 0.0) -> DepthOperator:
        width, offset = (float(round(v / step) * step if step else v) for v in of_factor * factor)
        return DepthOperator(factor=factor, profile=profile, width=round(width, 6), offset=round(offset, 6) + 0.0)

    found = optimize.minimize(
        lambda of_factor: total(operator(of_factor)),
        SIMPLEX[0],
        method="Nelder-Mead",
        bounds=(WIDTHS, OFFSETS),
        options={"initial_simplex": SIMPLEX, "xatol": STEP / factor / 4, "fatol": np.inf},
    )
    return operator(found.x, STEP)


def misfit(operator: DepthOperator, thin_ZYX: NDArray, thick_KYX: NDArray) -> float:
    """The mean squared difference between A·thin and thick, without the slices at either end."""
    made = operator.apply(torch.as_tensor(thin_ZYX)[None])[0].numpy()
    if made.shape != thick_KYX.shape:
        raise ValueError(f"{thin_ZYX.shape} thin slices by {operator.factor} are not {thick_KYX.shape} thick ones")
    if len(thick_KYX) <= 2 * ENDS:
        raise ValueError(f"{len(thick_KYX)} thick slices are too few: {2 * ENDS} at the ends are not looked at")
    return float(np.square(made - thick_KYX)[ENDS:-ENDS].mean())
