"""The schedule against the specification's table, and the arithmetic of noising and un-noising."""

import pytest
import torch

from training.diffusion import Schedule

SIGMA_BAR = {24: 0.050, 55: 0.099, 87: 0.150, 118: 0.200, 178: 0.300, 289: 0.501, 495: 1.000}
SIGMA_BAR |= {700: 1.99, 950: 13.07, 998: 642, 999: 20291}


@pytest.fixture(scope="module")
def schedule():
    return Schedule()


@pytest.mark.parametrize(("t", "sigma"), SIGMA_BAR.items())
def test_the_noise_levels_are_those_of_the_specification(schedule, t, sigma):
    assert schedule.sigma_bar(t) == pytest.approx(sigma, rel=4e-3 if sigma < 100 else 1e-3)


def test_the_smallest_signal_survives_in_float32(schedule):
    assert schedule.alpha_bar_T.dtype == torch.float32
    assert float(schedule.alpha_bar_T[999].sqrt()) == pytest.approx(4.93e-5, rel=1e-3)
    assert float(schedule.alpha_bar_T[950].sqrt()) == pytest.approx(0.0763, abs=1e-4)


def test_a_noise_level_finds_its_time(schedule):
    assert schedule.nearest_t(0.15) == 87
    assert schedule.nearest_t(0.3) == 178
    assert schedule.nearest_t(1e9) == 999


def test_noise_levels_rise_with_t(schedule):
    sigmas = [schedule.sigma_bar(t) for t in range(1000)]
    assert sigmas == sorted(sigmas)


def test_x0_comes_back_from_its_own_noise(schedule):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(3, 1, 4, 4, 4, generator=generator) * 2 - 1
    noise = torch.randn(x0.shape, generator=generator)
    t_B = torch.tensor([0, 300, 900])
    x_t = schedule.add_noise(x0, noise, t_B)
    torch.testing.assert_close(schedule.predict_x0(x_t, noise, t_B), x0, atol=1e-4, rtol=0)
    torch.testing.assert_close(schedule.predict_eps(x_t, x0, t_B), noise, atol=1e-4, rtol=0)


def test_one_time_for_the_whole_batch_equals_the_same_time_for_each(schedule):
    x0, noise = torch.zeros(2, 3, 3, 3), torch.randn(2, 3, 3, 3)
    assert torch.equal(schedule.add_noise(x0, noise, 87), schedule.add_noise(x0, noise, torch.tensor([87, 87])))


def test_half_precision_input_is_computed_in_float32_and_clamped(schedule):
    x_t = torch.randn(1, 1, 4, 4, 4).bfloat16()
    x0 = schedule.predict_x0(x_t, torch.zeros_like(x_t), 999)
    assert x0.dtype == torch.float32
    assert x0.abs().max() == 1
    assert schedule.predict_x0(x_t, torch.zeros_like(x_t), 999, clamp=False).abs().max() > 1000
