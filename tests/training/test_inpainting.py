"""RePaint: the walk over noise indices, known voxels, and the composite."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.diffusion import Schedule
from training.inpainting import composite, count_evaluations, repaint, repaint_schedule, unknown_zone
from training.sampling import uniform_timesteps

SCHEDULE = Schedule()


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 5))
def test_the_walk_moves_by_one_stays_in_bounds_and_ends_done(steps, jump_length, repeats):
    visits = repaint_schedule(steps, jump_length, repeats)
    assert visits[0] == steps - 1
    assert visits[-1] == -1
    assert visits.count(-1) == 1
    assert all(abs(a - b) == 1 for a, b in itertools.pairwise(visits))
    assert max(visits) == steps - 1
    jumps = len(range(0, steps - jump_length, jump_length))
    assert count_evaluations(visits) == steps + jumps * (repeats - 1) * jump_length


@pytest.mark.parametrize(("arguments", "entries", "calls"), [((250, 10, 10), 4571, 2410), ((100, 5, 3), None, 290)])
def test_the_walks_of_the_specification_have_its_counts(arguments, entries, calls):
    visits = repaint_schedule(*arguments)
    assert count_evaluations(visits) == calls
    assert entries in (None, len(visits))


def test_a_walk_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        repaint_schedule(0, 1, 1)


def run_repaint(known, mask, target, **options):
    calls = []

    def predict(x, t):
        calls.append(t)
        return SCHEDULE.predict_eps(x, target, t)

    timesteps = uniform_timesteps(980, 12)
    visits = repaint_schedule(12, 3, 2)
    out = repaint(
        predict,
        known,
        mask,
        timesteps=timesteps,
        visits=visits,
        schedule=SCHEDULE,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    return out, calls, visits


def test_known_voxels_come_back_bit_for_bit_and_the_rest_from_the_model():
    known = torch.randn(1, 6, 6, 6, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    mask = torch.zeros_like(known)
    mask[..., :3] = 1
    target = torch.full_like(known, 0.25)
    out, calls, visits = run_repaint(known, mask, target)
    assert torch.equal(out[..., :3], known[..., :3])
    torch.testing.assert_close(out[..., 3:], target[..., 3:], atol=1e-4, rtol=0)
    assert len(calls) == count_evaluations(visits)


def test_the_state_keeps_the_noise_level_of_its_index_on_the_way_up_and_down():
    """With nothing known and x_0 = 0, the state at an index is N(0, 1 − ᾱ): its standard deviation at every call."""
    seen = []

    def predict(x, t):
        seen.append((t, float(x.std())))
        return SCHEDULE.predict_eps(x, torch.zeros_like(x), t)

    nothing = torch.zeros(1, 32, 32, 32)
    repaint(
        predict,
        nothing,
        nothing,
        timesteps=uniform_timesteps(980, 12),
        visits=repaint_schedule(12, 3, 3),
        schedule=SCHEDULE,
        generator=torch.Generator().manual_seed(0),
    )
    for t, std in seen:
        assert abs(std / float(SCHEDULE.coefficients(t, nothing)[1]) - 1) < 0.05, t


def test_a_start_can_be_given_for_partial_noising():
    known = torch.zeros(1, 4, 4, 4)
    start = torch.full_like(known, 0.7)
    firsts = []

    def predict(x, t):
        firsts.append(x.clone())
        return torch.zeros_like(x)

    visits = repaint_schedule(3, 3, 1)
    repaint(predict, known, known, timesteps=(500, 250, 0), visits=visits, schedule=SCHEDULE, start_BZYX=start)
    assert torch.equal(firsts[0], start)


def test_a_walk_of_another_length_is_refused():
    known = torch.zeros(1, 4, 4, 4)
    with pytest.raises(ValueError, match="index 4"):
        repaint(
            lambda x, t: x,
            known,
            known,
            timesteps=(500, 0),
            visits=repaint_schedule(5, 2, 1),
            schedule=SCHEDULE,
        )


def test_the_unknown_zone_is_the_lesion_grown_as_a_ball():
    lesion = np.zeros((9, 9, 9))
    lesion[4, 4, 4] = 1
    zone = unknown_zone(lesion, 2)
    assert zone.sum() == 33  # lattice points within 2 of the centre
    assert not unknown_zone(np.zeros((3, 3, 3)), 2).any()


def test_the_composite_fades_in_inside_the_unknown_zone_only():
    source = np.zeros((1, 1, 11), np.float32)
    drawn = np.full_like(source, 100)
    unknown = np.zeros_like(source, bool)
    unknown[..., 2:9] = True
    out = composite(source, drawn, unknown, feather=2)[0, 0]
    np.testing.assert_array_equal(out[[0, 1, 9, 10]], 0)
    np.testing.assert_allclose(out[2:9], [100 / 3, 200 / 3, 100, 100, 100, 200 / 3, 100 / 3], rtol=1e-5)
