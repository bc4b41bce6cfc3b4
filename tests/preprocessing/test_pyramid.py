import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.pyramid import downsample2, downsample2_labels, resize_cube, resize_weights

shapes = st.tuples(*[st.integers(1, 9)] * 3)


def blocks(array, k, j, i):
    return array[2 * k : 2 * k + 2, 2 * j : 2 * j + 2, 2 * i : 2 * i + 2]


@given(shapes, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_coarser_voxel_is_the_mean_of_the_voxels_it_covers(shape, seed):
    image = np.random.default_rng(seed).integers(-1024, 3071, shape).astype(np.int16)
    half = downsample2(image)
    assert half.dtype == np.int16
    assert half.shape == tuple((n + 1) // 2 for n in shape)
    for index in np.ndindex(half.shape):
        assert abs(half[index] - blocks(image, *index).mean()) <= 0.5


def test_halving_moves_the_centre_by_half_a_voxel():
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.int16)[:, None, None], (16, 4, 4))
    assert downsample2(ramp)[:, 0, 0].tolist() == [10 * (2 * k + 0.5) for k in range(8)]


@given(shapes, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_coarser_label_is_the_commonest_and_background_only_where_it_wins(shape, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    half = downsample2_labels(labels)
    for index in np.ndindex(half.shape):
        block = np.pad(blocks(labels, *index), [(0, 2 - n) for n in blocks(labels, *index).shape], mode="edge")
        counts = np.bincount(block.ravel(), minlength=4)
        ranked = sorted(range(4), key=lambda v: (-counts[v], v or 99))
        assert half[index] == ranked[0]


@pytest.mark.parametrize("length", [5, 32, 33, 64, 100, 128])
def test_a_cube_of_a_ramp_holds_the_ramp_at_the_voxel_centres(length):
    size = 32
    ramp = np.broadcast_to(np.arange(length, dtype=np.int16)[:, None, None] * 100, (length, 8, 8))
    centres = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    cube = resize_cube(ramp, size)
    assert cube.shape == (size,) * 3
    assert np.abs(cube[:, 0, 0] - 100 * centres).max() <= (0.51 if length <= size or length % size == 0 else 26)


def test_shrinking_by_two_is_the_mean_of_pairs_as_in_the_pyramid():
    image = np.random.default_rng(0).integers(-1024, 2000, (32, 32, 32)).astype(np.int16)
    assert np.abs(resize_cube(image, 16).astype(int) - downsample2(image)).max() <= 1


def test_a_cube_of_its_own_size_is_itself():
    image = np.random.default_rng(0).integers(-1024, 2000, (16, 16, 16)).astype(np.int16)
    labels = (image > 0).astype(np.uint8)
    assert np.array_equal(resize_cube(image, 16), image)
    assert np.array_equal(resize_cube(labels, 16, labels=True), labels)


def test_labels_of_a_cube_lie_over_its_image():
    z = np.arange(100)
    image = np.broadcast_to(np.where(z < 37, 0, 1000).astype(np.int16)[:, None, None], (100, 40, 40))
    labels = (image > 500).astype(np.uint8)
    cube, map_ = resize_cube(image, 32), resize_cube(labels, 32, labels=True)
    assert ((cube > 500) != map_)[:, 0, 0].sum() <= 1
    assert set(np.unique(map_)) == {0, 1}


@given(st.integers(1, 300), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_weights_of_a_resize_sum_to_one(length, size):
    assert np.allclose(resize_weights(length, size).sum(1), 1, atol=1e-5)
