"""Random features are the same everywhere, and distances on them mean what they say."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import FIDMetric

from evaluation.extractor_files import RANDOM
from evaluation.extractors import Extractor, open_extractor
from evaluation.feature_cache import features_of
from evaluation.features import (
    feature_distances,
    frechet_distance,
    gaussian_mmd,
    kernel_distance,
    nearest,
    volume_features,
)
from evaluation.tasks.synthesis import training_distances
from evaluation.verdict import direction
from infra.lake import open_lake
from preprocessing.regions import WINDOWS

RNG = np.random.default_rng(0)
RANDOM_NETWORK = open_extractor(RANDOM)


def volumes(count, level=0.0, seed=0):
    return np.random.default_rng(seed).normal(level, 0.3, (count, 16, 16, 16)).astype(np.float32)


def test_the_frechet_distance_of_normal_sets_is_the_closed_form():
    a = RNG.normal(0, 1, (4000, 3))
    b = RNG.normal(0, 2, (4000, 3)) + np.array([1, 0, 2])
    expected = 5 + 3 * (1 - 2) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=0.1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_the_kernel_distance_is_the_double_sum_over_distinct_pairs():
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    expected = (
        np.mean([k(a[i], a[j]) for i in range(4) for j in range(4) if i != j])
        + np.mean([k(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
        - 2 * np.mean([k(x, y) for x in a for y in b])
    )
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_other_images_are_farther_than_like_ones_and_the_name_says_whose_features():
    near, _, _ = feature_distances(volumes(6), volumes(6, seed=1), RANDOM_NETWORK)
    far, _, fid = feature_distances(volumes(6, level=0.5, seed=2), volumes(6, seed=1), RANDOM_NETWORK)
    assert far.value > 10 * abs(near.value)
    assert near.metric == f"kid[{RANDOM}]"
    assert math.isnan(fid.value)
    assert "48 samples" in fid.reason


def test_enough_samples_have_a_frechet_distance():
    _, _, fid = feature_distances(volumes(63), volumes(63, seed=1), RANDOM_NETWORK)
    assert fid.metric == f"fid[{RANDOM}]"
    assert 0 <= fid.value < 1


def test_the_frechet_distance_is_monais_and_grows_with_noise():
    a = RNG.normal(0, 1, (600, 5))
    noisy = [frechet_distance(a, a + RNG.normal(0, s, a.shape)) for s in (0.5, 1, 2)]
    assert noisy == sorted(noisy)
    b = RNG.normal(0.3, 1.5, (600, 5))
    theirs = FIDMetric()(torch.as_tensor(a), torch.as_tensor(b))
    assert frechet_distance(a, b) == pytest.approx(float(theirs), rel=1e-4)


def test_the_gaussian_mmd_is_the_double_sum_with_the_median_width():
    a, b = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    pooled = [*a, *b]
    width = np.median([np.linalg.norm(x - y) for i, x in enumerate(pooled) for y in pooled[:i]])

    def k(x, y):
        return math.exp(-np.sum((x - y) ** 2) / (2 * width**2))

    expected = (
        np.mean([k(a[i], a[j]) for i in range(4) for j in range(4) if i != j])
        + np.mean([k(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
        - 2 * np.mean([k(x, y) for x in a for y in b])
    )
    assert gaussian_mmd(a, b) == pytest.approx(expected)


def test_both_sets_have_the_same_number_of_samples_and_the_unit_says_it():
    measured, again = (feature_distances(volumes(5), volumes(3, seed=1), RANDOM_NETWORK) for _ in range(2))
    assert {m.unit for m in measured} == {"1 (N = 24)"}
    assert measured[:2] == again[:2]


def test_a_copied_training_volume_is_found_in_voxels_and_in_features():
    training = volumes(4)
    drawn = np.stack([volumes(1, seed=9)[0], training[2]])
    index, distance = nearest(drawn, training)
    assert index[1] == 2
    assert distance[0] > 0.3
    assert nearest(volume_features(drawn), volume_features(training))[0][1] == 2
    closest, (other, copied) = training_distances(drawn, training, WINDOWS["chest"])
    assert closest[1] == 2
    assert [m.value for m in copied] == pytest.approx([0, 0], abs=1e-6)
    assert all(m.value > 0.01 for m in other)
    assert {direction(m.metric) for m in copied} == {0}, "a verdict must not praise a copy"


def test_the_distance_to_training_is_in_hu_of_the_window():
    training = volumes(2)
    _, shifted = training_distances(training + np.float32(0.01), training, WINDOWS["chest"])
    assert shifted[0][0].value == pytest.approx(0.01 * 900, rel=1e-4)


def test_a_network_that_looks_at_planes_has_a_distance_for_each_and_their_mean():
    """Coronal features that differ, axial ones that do not."""

    def extract(x):
        own = np.random.default_rng(len(x)).normal(size=(200, 3))
        return {"axial": own, "coronal": own + x.mean()}

    found = feature_distances(np.ones((4, 2, 2, 2)), np.zeros((4, 2, 2, 2)), Extractor("net 1a", extract))
    values = {one.metric: one.value for one in found}
    planes = ("", " axial", " coronal")
    assert set(values) == {f"{kind}[net 1a{plane}]" for kind in ("kid", "mmd", "fid") for plane in planes}
    assert values["kid[net 1a]"] == pytest.approx((values["kid[net 1a axial]"] + values["kid[net 1a coronal]"]) / 2)
    assert values["mmd[net 1a coronal]"] > 10 * abs(values["mmd[net 1a axial]"])


class Counting:
    """An extractor that counts how often it looks."""

    def __init__(self, name="radimagenet-resnet50-2.5d abc"):
        self.looks, self.extractor = 0, Extractor(name, self.extract)

    def extract(self, volumes):
        self.looks += 1
        return {"axial": volumes.reshape(len(volumes), -1)[:, :5].astype(float), "": np.ones((2, 3))}


def test_features_of_a_real_set_are_computed_once_for_equal_volumes(tmp_path):
    lake, counting = open_lake(str(tmp_path / "lake")), Counting()
    volumes = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    first, again = (features_of(lake, volumes, counting.extractor) for _ in range(2))
    assert counting.looks == 1
    assert first.keys() == again.keys() == {"axial", ""}
    assert all((first[plane] == again[plane]).all() for plane in first)
    features_of(lake, volumes[:2], counting.extractor)
    features_of(lake, volumes + np.float32(1e-6), counting.extractor)
    assert counting.looks == 3
    other = Counting("radimagenet-resnet50-2.5d def")
    features_of(lake, volumes, other.extractor)
    assert other.looks == 1, "other weights have features of their own"


def test_damaged_features_are_made_anew(tmp_path):
    lake, counting = open_lake(str(tmp_path / "lake")), Counting()
    volumes = np.zeros((2, 4, 4, 4), np.float32)
    whole = features_of(lake, volumes, counting.extractor)
    (key,) = lake.list("features")
    lake.write(key, lake.read(key)[:40])
    assert (features_of(lake, volumes, counting.extractor)["axial"] == whole["axial"]).all()
    assert counting.looks == 2
    features_of(lake, volumes, counting.extractor)
    assert counting.looks == 2


def test_the_random_network_leaves_nothing_in_the_lake(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    features_of(lake, np.zeros((2, 8, 8, 8), np.float32), open_extractor(RANDOM))
    assert lake.list("features") == []


def test_distances_are_the_same_with_kept_features():
    volumes, real = np.random.default_rng(1).normal(size=(2, 4, 8, 8, 8))
    extractor = open_extractor(RANDOM)
    assert feature_distances(volumes, real, extractor) == feature_distances(volumes, real, extractor, extractor.extract)
