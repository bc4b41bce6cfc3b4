"""Objectives: the loss by hand, batches as a pure function of the counter, the controls of both fine-tunings."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from training_worlds import RECIPE

from preprocessing.manifest import read_manifest
from preprocessing.store import open_case
from training.crops import LEVELS
from training.data import CropSampler, region_volumes
from training.diffusion import Schedule
from training.distributed import Rank
from training.objectives import (
    NoiseObjective,
    average_depth,
    lesion_control,
    low_resolution_control,
    mean_by_group,
    superresolution_config,
    upsample_depth,
)


def make_objective(lake, train, control=None, lesion_share=None, **options):
    manifest = read_manifest(lake, RECIPE)

    def sampler(split):
        volumes = region_volumes(manifest, split, lesion=True if lesion_share else None)
        return CropSampler(volumes, lambda key: open_case(lake, key), 8, train, lesion_share)

    return NoiseObjective(sampler("train"), sampler("val"), train, Schedule(), control, **options)


class Half(torch.nn.Module):
    """Answers half of what it is shown."""

    def forward(self, x, t, conditions, control=None):
        return x / 2


def test_the_loss_is_the_mean_absolute_error_of_the_noise_estimate(tiny_lake, config):
    objective = make_objective(tiny_lake, config.train)
    batch = objective.batch(0, 0)
    schedule = Schedule()
    for i, loss in enumerate(objective.losses(Half(), batch).tolist()):
        alpha_bar = float(schedule.alpha_bar_T[batch.t_B[i]].double())
        x0, noise = batch.x0_B1ZYX[i].double(), batch.noise_B1ZYX[i].double()
        x_t = alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise
        assert loss == pytest.approx(float((x_t / 2 - noise).abs().mean()), rel=1e-4)


def test_a_batch_is_a_pure_function_of_seed_step_and_rank(tiny_lake, config):
    def batch(step, **options):
        return make_objective(tiny_lake, config.train, **options).batch(step, 0)

    first, again = batch(3), batch(3)
    assert first.samples == again.samples
    assert torch.equal(first.noise_B1ZYX, again.noise_B1ZYX)
    assert torch.equal(first.t_B, again.t_B)
    for other in (
        batch(4),
        batch(3, rank=Rank(1, 2)),
        make_objective(tiny_lake, config.train.replace(seed=1)).batch(3, 0),
    ):
        assert not torch.equal(first.noise_B1ZYX, other.noise_B1ZYX)


def test_micro_batches_are_the_parts_of_a_larger_batch(tiny_lake, config):
    whole = make_objective(tiny_lake, config.train.replace(batch_size=4, accumulate=1)).batch(2, 0)
    parts = make_objective(tiny_lake, config.train.replace(batch_size=2, accumulate=2))
    both = [parts.batch(2, micro) for micro in (0, 1)]
    assert torch.equal(whole.t_B, torch.cat([p.t_B for p in both]))
    assert torch.equal(whole.noise_B1ZYX, torch.cat([p.noise_B1ZYX for p in both]))
    assert whole.samples == both[0].samples + both[1].samples


def test_times_are_uniform_and_spread_within_a_step(tiny_lake, config):
    objective = make_objective(tiny_lake, config.train.replace(batch_size=4))
    times = np.array([objective.batch(step, 0).t_B.numpy() for step in range(100)])
    histogram = np.histogram(times[:, 0], 4, (0, 1000))[0]
    assert histogram.min() >= 12
    assert times.min() >= 0
    assert times.max() <= 999
    for row in np.sort(times, 1):
        assert all(b - a >= 249 for a, b in pairwise(row))


def test_validation_never_changes_and_shows_every_region_and_level(tiny_lake, config):
    objective = make_objective(tiny_lake, config.train.replace(validation_samples=12, batch_size=5))
    first, again = list(objective.validation()), list(objective.validation())
    assert [len(batch.t_B) for batch in first] == [5, 5, 2]
    assert {group for batch in first for group in batch.groups} == {
        (r, x) for r in ("chest", "abdomen") for x in LEVELS
    }
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.noise_B1ZYX, b.noise_B1ZYX)
        assert torch.equal(a.x0_B1ZYX, b.x0_B1ZYX)
    assert not any((batch.conditions.anatomy_BZYX == 119).any() for batch in first)


def test_groups_are_averaged():
    losses = [(("chest", "wide"), 1.0), (("chest", "patch"), 2.0), (("abdomen", "patch"), 6.0)]
    means = mean_by_group(losses)
    assert means["val/loss"] == 3
    assert means["val/chest"] == 1.5
    assert means["val/patch"] == 4
    assert means["val/abdomen/patch"] == 6


def test_the_lesion_control_is_the_mask_as_minus_one_and_one(tiny_lake, config):
    objective = make_objective(tiny_lake, config.train, lesion_control, lesion_share=1.0)
    sample = objective.train.draw(np.random.default_rng(0))
    control = lesion_control([sample], np.random.default_rng(0))
    assert np.array_equal(control[0, 0].numpy() > 0, sample.lesion_ZYX > 0)
    assert set(control.unique().tolist()) <= {-1.0, 1.0}
    batch = objective.batch(0, 0)
    assert batch.control_BCZYX.shape == batch.x0_B1ZYX.shape


def test_averaging_in_depth_takes_blocks_and_repeats_the_last_slice():
    x = torch.arange(5.0).reshape(1, 1, 5, 1, 1).expand(1, 1, 5, 2, 2)
    assert average_depth(x, 2)[0, 0, :, 0, 0].tolist() == [0.5, 2.5, 4.0]
    assert average_depth(x, 2, phase=1)[0, 0, :, 0, 0].tolist() == [0.0, 1.5, 3.5]


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_upsampling_puts_a_block_at_the_middle_of_its_slices(phase):
    ramp = torch.arange(30.0).reshape(1, 1, 30, 1, 1).expand(1, 1, 30, 2, 2)
    drawn = upsample_depth(average_depth(ramp, 3, phase), 3, 30, phase)
    assert drawn.shape == ramp.shape
    torch.testing.assert_close(drawn[:, :, 4:-4], ramp[:, :, 4:-4], atol=1e-4, rtol=0)


def test_superresolution_sees_patches_only_and_blurs_only_in_depth(tiny_lake, config):
    train = superresolution_config(config.train)
    objective = make_objective(tiny_lake, train, low_resolution_control(2))
    batch = objective.batch(0, 0)
    assert {level for _, level in batch.groups} == {"patch"}
    assert batch.control_BCZYX.shape == batch.x0_B1ZYX.shape
    assert not torch.equal(batch.control_BCZYX, batch.x0_B1ZYX)
    slope = batch.control_BCZYX.diff(dim=2).abs().mean()
    assert slope < batch.x0_B1ZYX.diff(dim=2).abs().mean()
