"""Sliding-window noise estimates: the invariants of SPEC §6.1."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coordinate_grid import coordinate_grid
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from preprocessing.anatomy import UNKNOWN
from training.diffusion import Schedule
from training.sliding_windows import NoisePredictor, Scene, unknown_anatomy, window_starts, window_weights

SCHEDULE = Schedule()


class Pointwise(nn.Module):
    """A network whose answer at a voxel depends on that voxel alone: its value, place, anatomy, control and t."""

    def __init__(self):
        super().__init__()
        self.batches = []
        self.regions = []

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        self.batches.append(len(x_B1ZYX))
        self.regions.append(conditions.region_B.tolist())
        z, y, x = coordinate_grid(conditions.coordinates_BN).unbind(1)
        eps = torch.tanh(x_B1ZYX[:, 0]) + 0.3 * z - 0.2 * y + 0.1 * x + 0.01 * conditions.anatomy_BZYX
        eps = eps + 0.001 * t_B[:, None, None, None] + 0.1 * conditions.region_B[:, None, None, None]
        return (eps + control[:, 0] if control is not None else eps)[:, None]


def scene(shape, region=1, seed=0, control=False):
    generator = torch.Generator().manual_seed(seed)
    anatomy = torch.randint(0, 118, shape, generator=generator, dtype=torch.uint8)
    drawn = torch.randn((1, *shape), generator=generator) if control else None
    return Scene(region, anatomy, (3.0, 5.0, 7.0), (1.0, 2.0, 1.0), (60, 90, 70), drawn)


def field(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(size=st.integers(16, 100), overlap=st.floats(0, 0.9), shift=st.floats(-1, 1))
@example(size=16, overlap=0.5, shift=0)
@example(size=48, overlap=0.0, shift=1)
def test_windows_cover_an_axis_and_their_weights_sum_to_one_everywhere(size, overlap, shift):
    starts = window_starts(size, 16, overlap, shift)
    total = torch.zeros(size)
    for start, weight in zip(starts, window_weights(size, 16, starts), strict=True):
        total[start : start + 16] += weight
    assert (starts[0], starts[-1]) == (0, size - 16)
    assert len(starts) == len(window_starts(size, 16, overlap))
    torch.testing.assert_close(total, torch.ones(size))


def test_a_pointwise_network_gives_in_windows_what_it_gives_at_once():
    shape = (11, 17, 20)
    scenes = [scene(shape, seed=0, control=True), scene(shape, region=2, seed=1, control=True)]
    x = field((2, *shape))
    tiled = NoisePredictor(Pointwise(), scenes, patch=8, max_batch=5)(x, 300)
    whole = []
    for one, x_ZYX in zip(scenes, x, strict=True):
        padded = [torch.nn.functional.pad(v, (0, 0, 0, 3, 0, 9)) for v in (x_ZYX[None], one.control_CZYX)]
        anatomy = torch.nn.functional.pad(one.anatomy_ZYX, (0, 0, 0, 3, 0, 9))
        cube = Scene(one.region, anatomy, one.start_zyx, one.step_zyx, one.canvas_zyx, padded[1])
        whole.append(NoisePredictor(Pointwise(), [cube], patch=20)(padded[0], 300)[0, :11, :17, :20])
    torch.testing.assert_close(tiled, torch.stack(whole), atol=2e-6, rtol=0)


def test_no_seam_is_left_at_window_borders():
    shape = (24, 24, 24)
    eps = NoisePredictor(Pointwise(), [scene(shape)], patch=8)(field((1, *shape)), 10)[0]
    steps = eps.diff(dim=0).abs().mean((1, 2))
    clean = Pointwise()
    plain = NoisePredictor(clean, [scene(shape)], patch=24)(field((1, *shape)), 10)[0].diff(dim=0).abs().mean((1, 2))
    borders = [start - 1 for start in window_starts(24, 8, 0.5)[1:]]
    np.testing.assert_allclose(steps[borders] / plain[borders], 1, atol=0.01)


class Bordered(nn.Module):
    """A network that errs towards the border of its patch, as padded convolutions do."""

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        x = torch.arange(x_B1ZYX.shape[-1])
        return torch.exp(-torch.minimum(x, x.flip(0)) / 3).expand(x_B1ZYX.shape)


def ripple(grid_seed):
    """How much the mean estimate of 20 steps varies along x, away from the field's ends."""
    shape = (16, 16, 96)
    predict = NoisePredictor(Bordered(), [scene(shape)], 16, grid_seed=grid_seed)
    mean_X = torch.stack([predict(torch.zeros(1, *shape), 10)[0, 8, 8] for _ in range(20)]).mean(0)
    return float(mean_X[16:-16].std())


def test_windows_that_move_do_not_add_up_what_a_network_does_near_their_borders():
    assert np.mean([ripple(grid_seed=seed) for seed in range(3)]) < 0.75 * ripple(grid_seed=None)
    assert ripple(grid_seed=0) == ripple(grid_seed=0) != ripple(grid_seed=1)


def test_windows_that_move_are_as_many_and_still_know_where_no_body_is():
    shape = (16, 16, 64)
    body = torch.zeros(shape, dtype=torch.bool)
    body[..., :18] = True
    one = replace(scene(shape), body_ZYX=body, outside_ZYX=torch.full(shape, -0.5))
    network = Pointwise()
    predict = NoisePredictor(network, [one], 16, schedule=SCHEDULE, grid_seed=1)
    for _ in range(5):
        eps = predict(field((1, *shape)), 300)
        assert torch.isfinite(eps).all()
    assert predict.evaluations == 5 * predict.evaluations_per_call


def test_each_batched_network_call_is_one_evaluation():
    network, told = Pointwise(), []
    predict = NoisePredictor(
        network, [scene((8, 8, 16))] * 3, patch=8, max_batch=4, on_evaluation=lambda: told.append(1)
    )
    predict(field((3, 8, 8, 16)), 10)
    assert network.batches == [4, 4, 1]
    assert predict.evaluations == len(told) == 3


def beside_the_body(shape, *, guidance=1.0, max_batch=3):
    """A predictor of a field whose body fills only its first half along x, and the network that it asks."""
    body = torch.zeros(shape, dtype=torch.bool)
    body[:, :, :9] = True
    outside = torch.full(shape, -0.5)
    network = Pointwise()
    one = replace(scene(shape), body_ZYX=body, outside_ZYX=outside)
    predict = NoisePredictor(network, [one], 8, max_batch=max_batch, guidance=guidance, schedule=SCHEDULE)
    return predict, network, outside


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_how_often_the_network_is_asked_is_known_before(guidance):
    predict, network, _ = beside_the_body((8, 16, 24), guidance=guidance)
    expected = predict.evaluations_per_call
    predict(field((1, 8, 16, 24)), 300)
    assert len(network.batches) == predict.evaluations == expected


def test_the_network_is_not_asked_about_windows_without_body():
    shape = (8, 16, 24)
    predict, network, _ = beside_the_body(shape, max_batch=100)
    predict(field((1, *shape)), 300)
    assert network.batches == [3 * 3]  # of 3 x 5 windows those that begin before the ninth column


def test_away_from_the_body_the_state_goes_to_what_is_known_there():
    shape, x = (8, 16, 24), field((1, 8, 16, 24))
    predict, _, outside = beside_the_body(shape)
    eps = predict(x, 300)
    x0 = SCHEDULE.predict_x0(x, eps, 300)[0]
    torch.testing.assert_close(x0[..., 20:], outside[..., 20:])
    everywhere = NoisePredictor(Pointwise(), [scene(shape)], 8)(x, 300)
    torch.testing.assert_close(eps[..., :4], everywhere[..., :4])


def test_windows_without_body_need_to_be_known():
    one = replace(scene((8, 8, 16)), body_ZYX=torch.zeros((8, 8, 16), dtype=torch.bool))
    with pytest.raises(ValueError, match="need the schedule and x_0 outside"):
        NoisePredictor(Pointwise(), [one], 8, schedule=SCHEDULE)


def test_fields_of_one_batch_may_have_their_own_t():
    shape = (8, 8, 8)
    predict = NoisePredictor(Pointwise(), [scene(shape)] * 2, patch=8)
    x = field((1, *shape)).expand(2, *shape)
    both = predict(x, torch.tensor([10, 500]))
    torch.testing.assert_close(both[1], predict(x, 500)[1])
    assert not torch.allclose(both[0], both[1])


def test_guidance_extrapolates_from_the_estimate_without_region_and_anatomy():
    shape = (8, 8, 8)
    network = Pointwise()
    x = field((1, *shape))
    guided = NoisePredictor(network, [scene(shape)], patch=8, guidance=3.0)
    eps = guided(x, 10)
    with_all = NoisePredictor(Pointwise(), [scene(shape)], patch=8)(x, 10)
    null = Scene(3, unknown_anatomy(shape), (3.0, 5.0, 7.0), (1.0, 2.0, 1.0), (60, 90, 70))
    without = NoisePredictor(Pointwise(), [null], patch=8)(x, 10)
    torch.testing.assert_close(eps, without + 3 * (with_all - without), atol=1e-5, rtol=0)
    assert guided.evaluations == 2


def test_unknown_anatomy_is_119_everywhere():
    assert (unknown_anatomy((2, 3, 4)) == UNKNOWN).all()


def test_a_field_smaller_than_a_window_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match="6 voxels is smaller than a window of 8"):
        NoisePredictor(Pointwise(), [scene((8, 8, 6))], patch=8)


def test_scenes_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        NoisePredictor(Pointwise(), [scene((8, 8, 8)), scene((8, 8, 9))], patch=8)
