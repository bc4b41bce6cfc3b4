"""DiffPIR's closed forms against a dense least-squares solve, its starts, and the way back to HU."""

import numpy as np
import pytest
import torch

from preprocessing.regions import WINDOWS
from training.diffusion import Schedule
from training.restoration import (
    back_to_hu,
    consistent_start,
    depth_average,
    depth_average_step,
    depth_blur,
    depth_blur_step,
    diffpir,
    identity_step,
    mask_step,
    noise_start,
    posterior_mean,
)
from training.sampling import uniform_timesteps

SCHEDULE = Schedule()
Z, Y, X = 12, 2, 3


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense_solution(forward, y, x0, rho):
    """argmin ‖y − Hx‖² + ρ‖x − x_0‖² by the normal equations, H read off by applying it to unit volumes."""
    n = x0.numel()
    columns = [forward(unit.reshape(x0.shape)).reshape(-1) for unit in torch.eye(n, dtype=torch.float64)]
    h = torch.stack(columns, 1)
    left = h.T @ h + rho * torch.eye(n, dtype=torch.float64)
    return torch.linalg.solve(left, h.T @ y.reshape(-1) + rho * x0.reshape(-1)).reshape(x0.shape)


MASK = (randn(1, Z, Y, X, seed=5) > 0).double()
KERNEL = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=torch.float64)
OPERATORS = {
    "identity": (lambda x: x, identity_step),
    "mask": (lambda x: MASK * x, lambda y: mask_step(y, MASK)),
    "depth average by 2": (lambda x: depth_average(x, 2), lambda y: depth_average_step(y, 2)),
    "depth average by 3": (lambda x: depth_average(x, 3), lambda y: depth_average_step(y, 3)),
    "blur, stride 1": (lambda x: depth_blur(x, KERNEL, 1), lambda y: depth_blur_step(y, KERNEL, 1)),
    "blur, stride 2": (lambda x: depth_blur(x, KERNEL, 2), lambda y: depth_blur_step(y, KERNEL, 2)),
    "blur, stride 4": (lambda x: depth_blur(x, KERNEL, 4), lambda y: depth_blur_step(y, KERNEL, 4)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("rho", [1e-3, 0.3, 40.0])
def test_a_data_step_is_the_dense_least_squares_solution(name, rho):
    forward, make_step = OPERATORS[name]
    x0 = randn(1, Z, Y, X)
    y = forward(randn(1, Z, Y, X, seed=1))
    torch.testing.assert_close(make_step(y)(x0, rho), dense_solution(forward, y, x0, rho), atol=1e-10, rtol=0)


def test_blurring_by_a_box_is_averaging_blocks():
    """Mean of slices 3k … 3k+2 = a box of 3 centred on 3k+1: the FFT form agrees after a shift by one slice."""
    x = randn(1, Z, Y, X)
    box = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(depth_blur(x.roll(-1, -3), box, 3), depth_average(x, 3), atol=1e-12, rtol=0)


def test_slices_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="12 slices cannot be averaged by 5"):
        depth_average(randn(1, Z, Y, X), 5)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd length"):
        depth_blur(randn(1, Z, Y, X), KERNEL[:4], 2)


def gaussian_prior(scale):
    """The exact noise estimate where x_0 ~ N(0, scale²)."""

    def predict(x, t):
        signal, noise = SCHEDULE.coefficients(t, x)
        return noise * x / (signal**2 * scale**2 + noise**2)

    return predict


def test_the_posterior_mean_of_a_gaussian_is_wiener_shrinkage():
    y = randn(2, 6, 6, 6).float() * 0.3
    mean = posterior_mean(gaussian_prior(0.25), y, 0.15, SCHEDULE)
    sigma = SCHEDULE.sigma_bar(SCHEDULE.nearest_t(0.15))
    torch.testing.assert_close(mean, y * 0.25**2 / (0.25**2 + sigma**2), atol=1e-5, rtol=0)


def test_the_posterior_mean_takes_one_sigma_per_field():
    y = randn(2, 4, 4, 4).float() * 0.3
    both = posterior_mean(gaussian_prior(0.25), y, [0.05, 0.3], SCHEDULE)
    torch.testing.assert_close(both[1], posterior_mean(gaussian_prior(0.25), y[1:], 0.3, SCHEDULE)[0])


def test_the_consistent_start_adds_no_noise_at_its_own_level():
    y = randn(1, 8, 8, 8).float()
    t = SCHEDULE.nearest_t(0.15)
    sigma = SCHEDULE.sigma_bar(t)
    signal, _ = SCHEDULE.coefficients(t, y)
    torch.testing.assert_close(consistent_start(y, sigma, t, SCHEDULE), signal * y)


def test_the_consistent_start_tops_up_to_the_level_of_a_later_t():
    clean = torch.zeros(1, 48, 48, 48)
    y = clean + 0.15 * randn(*clean.shape).float()
    x = consistent_start(y, 0.15, 400, SCHEDULE, torch.Generator().manual_seed(0))
    _, noise = SCHEDULE.coefficients(400, x)
    assert abs(float(x.std()) / float(noise) - 1) < 0.01


def test_a_full_noise_start_is_the_forward_process():
    y = torch.full((1, 40, 40, 40), 0.5)
    x = noise_start(y, 300, SCHEDULE, torch.Generator().manual_seed(0))
    signal, noise = (float(c) for c in SCHEDULE.coefficients(300, torch.zeros(1)))
    assert abs(float(x.mean()) - 0.5 * signal) < 0.01
    assert abs(float(x.std()) - noise) < 0.01


def test_diffpir_with_an_exact_measurement_returns_it():
    """σ_n → 0 makes every data step trust y alone."""
    y = randn(1, 6, 6, 6).float().clamp(-1, 1)
    found = diffpir(
        gaussian_prior(0.25),
        noise_start(y, 300, SCHEDULE, torch.Generator()),
        identity_step(y),
        sigma_n=1e-6,
        lam=1.0,
        timesteps=uniform_timesteps(300, 8),
        schedule=SCHEDULE,
        final_data_step=True,
    )
    torch.testing.assert_close(found, y, atol=1e-4, rtol=0)


def test_diffpir_reaches_the_maximum_of_a_gaussian_posterior_between_data_and_prior():
    y = torch.full((1, 4, 4, 4), 0.5)
    found = diffpir(
        gaussian_prior(0.15),
        consistent_start(y, 0.15, SCHEDULE.nearest_t(0.15), SCHEDULE),
        identity_step(y),
        sigma_n=0.15,
        lam=10.0,
        timesteps=uniform_timesteps(SCHEDULE.nearest_t(0.15), 20),
        schedule=SCHEDULE,
    )
    assert 0.2 < float(found.mean()) < 0.48


def test_fresh_noise_makes_diffpir_stochastic_and_zeta_zero_does_not():
    y = randn(1, 6, 6, 6).float() * 0.3

    def run(zeta, seed):
        generator = torch.Generator().manual_seed(seed)
        options = {"sigma_n": 0.15, "lam": 10.0, "timesteps": uniform_timesteps(88, 5), "schedule": SCHEDULE}
        return diffpir(gaussian_prior(0.2), y, identity_step(y), zeta=zeta, generator=generator, **options)

    assert torch.equal(run(0.0, 1), run(0.0, 2))
    assert not torch.allclose(run(0.3, 1), run(0.3, 2))


def test_depth_average_restoration_agrees_with_the_low_resolution_image():
    sharp = randn(1, 8, 4, 4).float().clamp(-1, 1)
    low = depth_average(sharp, 2)
    found = diffpir(
        gaussian_prior(0.5),
        noise_start(low.repeat_interleave(2, -3), 990, SCHEDULE, torch.Generator().manual_seed(0)),
        depth_average_step(low, 2),
        sigma_n=1e-5,
        lam=1.0,
        timesteps=uniform_timesteps(990, 10),
        schedule=SCHEDULE,
        final_data_step=True,
    )
    torch.testing.assert_close(depth_average(found, 2), low, atol=1e-4, rtol=0)


def test_back_to_hu_changes_only_what_the_window_holds():
    window = WINDOWS["abdomen"]
    source = np.array([-1000.0, -120.0, -119.0, 60.5, 239.0, 240.0, 900.0], np.float32)
    x = window.normalise(source) + np.float32(0.1)
    out = back_to_hu(source, x, window)
    np.testing.assert_array_equal(out[[0, 1, 5, 6]], source[[0, 1, 5, 6]])
    np.testing.assert_allclose(out[2:5], source[2:5] + 18, atol=1e-3)
