"""The samplers: strided posteriors (SPEC §3.3), and solvers against distributions whose answer is known."""

import numpy as np
import pytest
import torch

from training.diffusion import Schedule
from training.sampling import (
    SAMPLERS,
    ancestral,
    ddim,
    dpm_solver,
    log_snr_timesteps,
    posterior,
    uniform_timesteps,
)

SCHEDULE = Schedule()


def field(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_uniform_timesteps_descend_to_zero_without_repeats():
    assert uniform_timesteps(500, 6) == (500, 400, 300, 200, 100, 0)
    assert uniform_timesteps(3, 10) == (3, 2, 1, 0)
    assert uniform_timesteps(87, 1) == (87,)


def test_log_snr_timesteps_descend_to_zero_evenly_in_the_noise_level():
    timesteps = log_snr_timesteps(990, 12, SCHEDULE)
    assert (timesteps[0], timesteps[-1]) == (990, 0)
    levels = np.log([SCHEDULE.sigma_bar(t) for t in timesteps])
    np.testing.assert_allclose(np.diff(levels), np.diff(levels).mean(), rtol=0.15)
    assert log_snr_timesteps(3, 10, SCHEDULE) == (3, 2, 1, 0)
    assert log_snr_timesteps(87, 1, SCHEDULE) == (87,)


@pytest.mark.parametrize(("t", "s"), [(999, 950), (500, 100), (87, 86), (2, 1), (1, 0)])
def test_the_strided_posterior_is_gaussian_conditioning(t, s):
    """Against the joint normal of (x_s, x_t) given x_0, in double precision from the definition of the forward walk."""
    ab = np.asarray(SCHEDULE._signal_T.double()) ** 2
    ratio = ab[t] / ab[s]
    cov = np.array([[1 - ab[s], np.sqrt(ratio) * (1 - ab[s])], [np.sqrt(ratio) * (1 - ab[s]), 1 - ab[t]]])
    x0, x_t = 0.37, -1.2
    gain = cov[0, 1] / cov[1, 1]
    mean, variance = posterior(torch.tensor([x_t]), torch.tensor([x0]), t, s, SCHEDULE)
    np.testing.assert_allclose(float(mean), np.sqrt(ab[s]) * x0 + gain * (x_t - np.sqrt(ab[t]) * x0), rtol=1e-4)
    np.testing.assert_allclose(variance, cov[0, 0] - gain * cov[0, 1], rtol=1e-4)


def oracle(x0):
    return lambda x, t: SCHEDULE.predict_eps(x, x0, t)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_sampler_with_an_oracle_finds_the_image_and_asks_once_a_step(name, steps):
    x0, asked = field((2, 4, 4, 4)).clamp(-1, 1), []

    def ask(x, t):
        asked.append(t)
        return oracle(x0)(x, t)

    timesteps = uniform_timesteps(990, steps)
    found = SAMPLERS[name](ask, field(x0.shape, 2), timesteps, SCHEDULE, generator=torch.Generator())
    assert tuple(asked) == timesteps
    torch.testing.assert_close(found, x0, atol=2e-3, rtol=0)


def test_deterministic_ddim_keeps_a_gaussian_gaussian():
    """For x_0 ~ N(0, s²) the exact score is linear; many small DDIM steps must return a sample of variance s²."""
    scale = 0.2

    def exact(x, t):
        signal, noise = SCHEDULE.coefficients(t, x)
        return noise * x / (signal**2 * scale**2 + noise**2)

    drawn = ddim(exact, field((1, 32, 32, 32)), uniform_timesteps(990, 200), SCHEDULE)
    assert abs(float(drawn.std()) / scale - 1) < 0.05


def test_ancestral_sampling_is_ddim_with_eta_one():
    x0, x = field((1, 6, 6, 6)).clamp(-1, 1), field((1, 6, 6, 6), 4)
    wrong = oracle(0.5 * x0)
    arguments = (wrong, x, uniform_timesteps(900, 9), SCHEDULE)
    ours = ancestral(*arguments, generator=torch.Generator().manual_seed(3))
    theirs = ddim(*arguments, eta=1.0, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_strided_ancestral_sampling_draws_the_right_variance():
    """Steps of 2; a previous-step posterior (t − 1) in its place would be far off."""
    scale = 0.2

    def exact(x, t):
        signal, noise = SCHEDULE.coefficients(t, x)
        return noise * x / (signal**2 * scale**2 + noise**2)

    seen = []
    ancestral(
        exact,
        field((1, 24, 24, 24)),
        uniform_timesteps(990, 500),
        SCHEDULE,
        generator=torch.Generator().manual_seed(1),
        on_step=lambda t, x0: seen.append((t, float(x0.std()))),
    )
    assert [t for t, _ in seen] == list(uniform_timesteps(990, 500))
    assert abs(seen[-1][1] / scale - 1) < 0.05


MEAN, SCALE = 0.3, 0.15


def exact_eps(schedule):
    """The noise estimate of a perfect network for x_0 ~ N(MEAN, SCALE²)."""

    def predict(x, t):
        signal, noise = schedule.coefficients(t, x)
        return noise * (x - signal * MEAN) / (signal**2 * SCALE**2 + noise**2)

    return predict


def flow_error(sampler, steps):
    """How far, root mean square, a sampler is from the probability flow's own answer, in fine time."""
    schedule = Schedule(50_000)
    timesteps = log_snr_timesteps(45_000, steps, schedule)
    x, last = field((1, 8, 8, 8)), timesteps[-1]

    def spread(t):
        signal, noise = (c.double() for c in schedule.coefficients(t, x))
        return signal, (signal**2 * SCALE**2 + noise**2).sqrt()

    (signal_t, deviation_t), (signal_s, deviation_s) = spread(timesteps[0]), spread(last)
    x_s = signal_s * MEAN + deviation_s / deviation_t * (x - signal_t * MEAN)
    wanted = schedule.predict_x0(x_s, exact_eps(schedule)(x_s, last), last)
    return float((sampler(exact_eps(schedule), x, timesteps, schedule) - wanted).square().mean().sqrt())


def test_dpm_solver_is_of_second_order_where_ddim_is_of_first():
    first, second = ([flow_error(sampler, steps) for steps in (40, 80, 160)] for sampler in (ddim, dpm_solver))
    print(f"ddim {first}, dpm-solver++ {second}")
    orders = [np.log2(np.array(errors[:-1]) / errors[1:]) for errors in (first, second)]
    np.testing.assert_allclose(orders[0], 1, atol=0.25)
    np.testing.assert_allclose(orders[1], 2, atol=0.4)


@pytest.mark.parametrize("steps", [8, 12, 20, 40])
def test_dpm_solver_is_nearer_than_ddim_at_equal_evaluations(steps):
    assert flow_error(dpm_solver, steps) < 0.5 * flow_error(ddim, steps)
