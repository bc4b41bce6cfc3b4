"""RePaint: a diffusion model fills what is unknown around what is known (Lugmayr et al. 2022; SPEC §6.4).

Written from the published equations. Known voxels of the state are drawn from the source at every noise level; going
back up a few steps and down again lets both parts agree. `composite` returns known voxels from the source itself.

Letters: B batch; Z Y X space; masks are 1 where a voxel is known.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from training.diffusion import Schedule
from training.sampling import OnStep, Predict, draw_noise, posterior


def repaint_schedule(steps: int, jump_length: int, repeats: int) -> tuple[int, ...]:
    """The noise indices visited, steps − 1 … −1, each one beside the one before; −1 is the finished image.

    From the first arrival at each multiple p of `jump_length` (p < steps − jump_length) the walk goes up `jump_length`
    indices and down again, so that this stretch is walked `repeats` times in all.

    Raises:
        ValueError: an argument is below 1.
    """
    if min(steps, jump_length, repeats) < 1:
        raise ValueError(f"steps, jump_length and repeats must be 1 or more, not {steps}, {jump_length}, {repeats}")
    visits: list[int] = []
    for index in range(steps - 1, -1, -1):
        visits.append(index)
        if index % jump_length == 0 and index < steps - jump_length:
            top = index + jump_length
            visits += [*range(index + 1, top + 1), *range(top - 1, index - 1, -1)] * (repeats - 1)
    return (*visits, -1)


def count_evaluations(visits: Sequence[int]) -> int:
    """How often the network is asked on a walk: once for every step down."""
    return sum(after < before for before, after in itertools.pairwise(visits))


def repaint(
    predict: Predict,
    known_BZYX: Tensor,
    mask_BZYX: Tensor,
    *,
    timesteps: Sequence[int],
    visits: Sequence[int],
    schedule: Schedule,
    generator: torch.Generator | None = None,
    start_BZYX: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """x̂_0, equal to `known` where the mask is 1 and drawn by the model elsewhere.

    `timesteps` descend; index i of a visit is the i-th from their end. A step down takes the unknown part from the
    strided posterior and the known part from q(x_s | known); a step up is x_t = √(ᾱ_t/ᾱ_s) x_s + √(1 − ᾱ_t/ᾱ_s) z.
    `start` is the state at timesteps[0]; without it that is pure noise where nothing is known.

    Raises:
        ValueError: the visits do not begin at the last index of the timesteps.
    """
    ascending = tuple(reversed(timesteps))
    if visits[0] != len(ascending) - 1:
        raise ValueError(f"the walk begins at index {visits[0]}, the timesteps end at {len(ascending) - 1}")
    x, x0 = start_BZYX, known_BZYX
    if x is None:
        known = schedule.add_noise(known_BZYX, draw_noise(known_BZYX, generator), timesteps[0])
        x = torch.where(mask_BZYX > 0, known, draw_noise(known_BZYX, generator))
    for here, there in itertools.pairwise(visits):
        if there > here:
            x = _step_up(x, ascending[here], ascending[there], schedule, generator)
            continue
        x0 = schedule.predict_x0(x, predict(x, ascending[here]), ascending[here])
        if on_step:
            on_step(ascending[here], x0)
        if there >= 0:
            x = _step_down(x, x0, known_BZYX, mask_BZYX, (ascending[here], ascending[there]), schedule, generator)
    return torch.where(mask_BZYX > 0, known_BZYX, x0)


def _step_down(
    x_t: Tensor,
    x0: Tensor,
    known: Tensor,
    mask: Tensor,
    times: tuple[int, int],
    schedule: Schedule,
    generator: torch.Generator | None,
) -> Tensor:
    mean, variance = posterior(x_t, x0, *times, schedule)
    drawn = mean + variance**0.5 * draw_noise(x_t, generator)
    return torch.where(mask > 0, schedule.add_noise(known, draw_noise(known, generator), times[1]), drawn)


def _step_up(x_s: Tensor, s: int, t: int, schedule: Schedule, generator: torch.Generator | None) -> Tensor:
    (signal_s, noise_s), (signal_t, noise_t) = (schedule.coefficients(u, x_s) for u in (s, t))
    ratio = signal_t / signal_s
    lost = ((noise_t**2 - noise_s**2) / signal_s**2).clamp(0, 1)  # 1 − ᾱ_t/ᾱ_s without cancellation
    return ratio * x_s + lost.sqrt() * draw_noise(x_s, generator)


def unknown_zone(lesion_ZYX: NDArray, dilation: int) -> NDArray[np.bool_]:
    """What is to be filled: the lesion grown by `dilation` voxels (a ball), boolean."""
    lesion = np.asarray(lesion_ZYX) > 0
    if not lesion.any():
        return lesion
    return np.asarray(ndimage.distance_transform_edt(~lesion) <= dilation)


def composite(source_hu_ZYX: NDArray, drawn_hu_ZYX: NDArray, unknown_ZYX: NDArray, feather: int) -> NDArray[np.float32]:
    """The finished volume in HU, float32: the source itself where known, bit for bit, and the drawing inside.

    The drawing fades in over `feather` voxels counted from the border of the unknown zone, wholly inside it.
    """
    source = np.asarray(source_hu_ZYX, np.float32)
    unknown = np.asarray(unknown_ZYX) > 0
    depth = ndimage.distance_transform_edt(unknown) if unknown.any() else np.zeros(unknown.shape)
    weight = np.clip(depth / (feather + 1), 0, 1).astype(np.float32)
    mixed = source + weight * (np.asarray(drawn_hu_ZYX, np.float32) - source)
    return np.where(unknown, mixed, source)
