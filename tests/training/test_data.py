"""Samples: read as they lie in the pyramid, decided by a counter alone, drawn in the shares that the config names."""

import pickle
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from training_worlds import RECIPE, make_case

from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.manifest import read_manifest
from preprocessing.pyramid import downsample2, resize_cube
from preprocessing.regions import WINDOWS, RegionExtent
from preprocessing.store import open_case
from training.conditioning import NULL_REGION, coordinates
from training.config import TrainConfig
from training.crops import AIR_HU, LEVELS, place_crop, read_crop
from training.data import CropSampler, collate, generator, region_volumes

PATCH = 8


@pytest.fixture(scope="module")
def volumes(tiny_lake):
    return region_volumes(read_manifest(tiny_lake, RECIPE), "train")


@pytest.fixture(scope="module")
def stored(tiny_lake, volumes):
    return open_case(tiny_lake, volumes[0].key)


def make_sampler(lake, volumes, lesion_share=None, **changes):
    return CropSampler(volumes, lambda key: open_case(lake, key), PATCH, TrainConfig(**changes), lesion_share)


def extents(stored):
    return {extent.name: extent for extent in stored.record.regions}


def test_volumes_are_the_regions_of_a_split(tiny_lake):
    manifest = read_manifest(tiny_lake, RECIPE)
    train, val = region_volumes(manifest, "train"), region_volumes(manifest, "val")
    assert {v.region for v in train} == {"chest", "abdomen"}
    assert not {v.case for v in train} & {v.case for v in val}
    assert {v.region for v in region_volumes(manifest, "train", ("chest",))} == {"chest"}
    assert all(v.lesion for v in region_volumes(manifest, "train", lesion=True))


def test_an_empty_split_or_region_is_named(tiny_lake, tmp_path):
    manifest = read_manifest(tiny_lake, RECIPE)
    with pytest.raises(UserError, match=r"train split .* no case .* head_neck"):
        region_volumes(manifest, "train", ("head_neck",))
    with pytest.raises(UserError, match="the train split"):
        region_volumes(read_manifest(open_lake(str(tmp_path)), RECIPE), "train")


@pytest.mark.parametrize("region", ["chest", "abdomen"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_pyramid_agrees_with_resizing_on_the_fly(stored, region, level, rng):
    extent = extents(stored)[region]
    for _ in range(5):
        centre = rng.random(3) * (extent.z_stop - extent.z_start, 22, 25)
        crop = place_crop(stored, extent, level, PATCH, centre.astype(int))
        ready = read_crop(stored, extent, crop, "image", PATCH)
        native = read_crop(stored, extent, crop, "image", PATCH, from_pyramid=False)
        assert ready.shape == (PATCH,) * 3
        assert np.abs(ready.astype(float) - native).max() <= 0.5
        labels = [read_crop(stored, extent, crop, "anatomy", PATCH, from_pyramid=p) for p in (True, False)]
        assert np.array_equal(*labels)


def test_a_patch_is_the_box_where_its_coordinates_say(stored):
    extent = extents(stored)["chest"]
    crop = place_crop(stored, extent, "patch", PATCH, (11, 10, 12))
    image = stored.read_all("image")
    z, y, x = (s - p for s, p in zip(crop.start_zyx, crop.canvas.pad_zyx, strict=True))
    expected = image[19 + z : 27 + z, y : y + 8, x : x + 8]
    assert np.array_equal(read_crop(stored, extent, crop, "image", PATCH), expected)
    along_z, _, _ = coordinates(crop.start_zyx, crop.step_zyx, crop.canvas.canvas_zyx, (PATCH,) * 3)
    assert float(along_z[0]) == pytest.approx(2 * (z + 0.5) / 22 - 1)


def test_a_wide_crop_is_the_mean_of_two_by_two_by_two_voxels_from_an_even_one(stored):
    extent = extents(stored)["chest"]
    crop = place_crop(stored, extent, "wide", PATCH, (10, 11, 12))
    canvas = crop.canvas
    z, y, x = (o + s - p for o, s, p in zip(canvas.origin_zyx, crop.start_zyx, canvas.pad_zyx, strict=True))
    assert (z % 2, y % 2, x % 2) == (0, 0, 0)
    expected = downsample2(stored.read_all("image")[z : z + 16, y : y + 16, x : x + 16])
    assert np.array_equal(read_crop(stored, extent, crop, "image", PATCH), expected)


def test_the_image_level_is_the_whole_region(stored):
    extent = extents(stored)["abdomen"]
    crop = place_crop(stored, extent, "image", PATCH, (0, 0, 0))
    expected = resize_cube(stored.read_all("image")[:24], PATCH)
    assert np.array_equal(read_crop(stored, extent, crop, "image", PATCH), expected)
    _, along_y, _ = coordinates(crop.start_zyx, crop.step_zyx, crop.canvas.canvas_zyx, (PATCH,) * 3)
    torch.testing.assert_close(along_y, (torch.arange(8) + 0.5) / 4 - 1)


def test_a_region_smaller_than_the_crop_is_padded_with_air_on_both_sides(tmp_path):
    lake = open_lake(str(tmp_path))
    row = make_case(lake, "flat", 0, (10, 5, 30), regions=(RegionExtent(name="chest", z_start=3, z_stop=8),))
    stored = open_case(lake, row.key)
    extent = stored.record.regions[0]
    for level in ("patch", "wide"):
        crop = place_crop(stored, extent, level, PATCH, (2, 2, 15))
        hu, labels = (read_crop(stored, extent, crop, name, PATCH) for name in ("image", "anatomy"))
        assert (hu[0] == AIR_HU).all()
        assert (hu[-1] == AIR_HU).all()
        assert (labels[0] == 0).all()
        assert (hu != AIR_HU).any()
        axes = coordinates(crop.start_zyx, crop.step_zyx, crop.canvas.canvas_zyx, (PATCH,) * 3)
        assert max(float(u.abs().max()) for u in axes) < 1
    crop = place_crop(stored, extent, "patch", PATCH, (2, 2, 15))
    inside = read_crop(stored, extent, crop, "image", PATCH)[1:6, 1:6]
    x = crop.start_zyx[2]
    assert np.array_equal(inside, stored.read_all("image")[3:8, :, x : x + 8])


def test_a_sample_depends_on_its_counter_and_on_nothing_else(tiny_lake, volumes):
    first, second = make_sampler(tiny_lake, volumes), make_sampler(tiny_lake, volumes)
    second.draw(generator(9, 9))  # a sampler has no memory
    for counter in [(0, 0, 0, 0), (0, 5, 1, 3)]:
        a, b = first.draw(generator(1, *counter)), second.draw(generator(1, *counter))
        assert str(a) == str(b)
        assert np.array_equal(a.x0_ZYX, b.x0_ZYX)
        assert np.array_equal(a.anatomy_ZYX, b.anatomy_ZYX)
    names = {str(first.draw(generator(*c))) for c in [(1, 0, 0, 0), (2, 0, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)]}
    assert len(names) == 4


def test_levels_regions_and_withheld_conditions_have_their_shares(tiny_lake, volumes):
    sampler = make_sampler(tiny_lake, volumes)
    samples = [sampler.draw(generator(0, i)) for i in range(600)]
    levels = Counter(s.level for s in samples)
    assert all(abs(levels[level] - 200) < 60 for level in LEVELS)
    assert abs(sum(s.region == NULL_REGION for s in samples) - 60) < 30
    assert abs(sum((s.anatomy_ZYX == 119).all() for s in samples) - 90) < 36
    assert len({s.volume for s in samples}) == len(volumes)


def test_most_crops_are_centred_on_the_body(tiny_lake, volumes):
    def share(foreground):
        sampler = make_sampler(tiny_lake, volumes, levels=(0, 0, 1), foreground=foreground, unknown_anatomy=0)
        return np.mean([(sampler.draw(generator(0, i)).anatomy_ZYX > 0).mean() for i in range(150)])

    assert share(1.0) > share(0.0) + 0.02


def test_the_window_of_the_region_is_applied(tiny_lake, volumes, stored):
    chest = next(v for v in volumes if v.region == "chest" and v.key == stored.key)
    sample = make_sampler(tiny_lake, volumes).cut(chest, "patch", generator(0))
    hu = read_crop(stored, extents(stored)["chest"], sample.crop, "image", PATCH)
    assert np.array_equal(sample.x0_ZYX, WINDOWS["chest"].normalise(hu))


def test_lesion_samples_hold_lesion_in_the_share_asked_for(tiny_lake):
    lesions = region_volumes(read_manifest(tiny_lake, RECIPE), "train", lesion=True)
    sampler = make_sampler(tiny_lake, lesions, lesion_share=1.0, levels=(0, 0, 1))
    for i in range(20):  # the lesion lies in the chest: a crop of the abdomen cannot be aimed at it
        sample = sampler.draw(generator(0, i))
        assert sample.volume.region == "chest"
        assert sample.lesion_ZYX is not None
        assert sample.lesion_ZYX.any()
    never = make_sampler(tiny_lake, lesions, lesion_share=0.0, levels=(0, 0, 1), foreground=0)
    assert not all(never.draw(generator(0, i)).lesion_ZYX.any() for i in range(20))


def test_a_batch_has_its_shapes_and_says_where_it_comes_from(tiny_lake, volumes):
    sampler = make_sampler(tiny_lake, volumes)
    samples = [sampler.draw(generator(0, i)) for i in range(3)]
    noise = [np.full((PATCH,) * 3, i, np.float32) for i in range(3)]
    batch = collate(samples, noise, [0, 10, 20])
    assert batch.x0_B1ZYX.shape == batch.noise_B1ZYX.shape == (3, 1, 8, 8, 8)
    assert [tuple(axis.shape) for axis in batch.conditions.coordinates_BN] == [(3, 8)] * 3
    assert batch.t_B.tolist() == [0, 10, 20]
    assert batch.samples == tuple(str(s) for s in samples)


def test_a_sampler_draws_the_same_in_another_process(tiny_lake, volumes):
    sampler = CropSampler(volumes, partial(open_case, tiny_lake), PATCH, TrainConfig())
    drawn = sampler.draw(generator(0, 1))
    travelled = pickle.loads(pickle.dumps(sampler)).draw(generator(0, 1))
    assert str(drawn) == str(travelled)
    assert np.array_equal(drawn.x0_ZYX, travelled.x0_ZYX)
