"""The metadata of a stored case: what OME-Zarr 0.5 and its readers expect."""

import json

import numpy as np
import pytest
from store_samples import GEOMETRY, SHAPE

from preprocessing import layout
from preprocessing.geometry import Geometry
from preprocessing.recipe import paper

SHAPES = [SHAPE, (19, 22, 25), (10, 11, 13)]


def test_a_level_moves_by_half_a_voxel_with_every_halving():
    two = layout.level_geometry(GEOMETRY, 2, SHAPES[2])
    assert two.spacing_mm == (16.0, 16.0, 16.0)
    first_block = GEOMETRY.world(np.argwhere(np.ones((4, 4, 4)))).mean(0)
    np.testing.assert_allclose(two.origin_mm, first_block)


def test_geometries_survive_the_attributes():
    attributes = json.loads(layout.group_document(layout.image_attributes("image", GEOMETRY, SHAPES)))["attributes"]
    levels = layout.level_geometries(attributes, SHAPES)
    assert levels[0] == GEOMETRY
    assert levels[1] == layout.level_geometry(GEOMETRY, 1, SHAPES[1])


def test_axes_are_z_y_x_in_millimetres_with_anatomical_orientation():
    axes = layout.multiscale("image", GEOMETRY, SHAPES)["axes"]
    assert [axis["name"] for axis in axes] == ["z", "y", "x"]
    assert {axis["unit"] for axis in axes} == {"millimeter"}
    orientations = [axis["orientation"]["value"] for axis in axes]
    assert orientations == ["inferior-to-superior", "anterior-to-posterior", "right-to-left"]


def test_our_own_keys_stay_out_of_ome():
    attributes = layout.image_attributes("image", GEOMETRY, SHAPES, {"source": "phantom"})
    assert set(attributes) == {"ome", "meddiff"}
    assert set(attributes["ome"]) == {"version", "multiscales"}


def test_label_values_have_names():
    label = layout.label_attributes("anatomy", GEOMETRY, SHAPES)["ome"]["image-label"]
    names = {entry["label-value"]: entry["name"] for entry in label["properties"]}
    assert names[5] == "liver"
    assert names[118] == "body"
    assert len(names) == 119


@pytest.mark.parametrize("shape", [(400, 300, 512), (26, 320, 320), (3, 5, 700), (64, 64, 64), (65, 257, 1)])
def test_shards_are_whole_chunks_and_cover_small_volumes(shape):
    chunk, shard = layout.chunk_and_shard(shape, paper())
    assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
    assert all(c <= n and s < n + c for c, s, n in zip(chunk, shard, shape, strict=True))
    assert max(shard) <= 256


def test_object_keys_name_every_shard_once():
    keys = layout.object_keys((100, 64, 65), (64, 64, 64))
    assert keys == ["c/0/0/0", "c/0/0/1", "c/1/0/0", "c/1/0/1"]


def test_a_tilted_geometry_has_no_place_in_the_store():
    tilted = Geometry(SHAPE, (1, 1, 1), direction=((1, 0, 0), (0, 0, 1), (0, 1, 0)))
    with pytest.raises(ValueError, match="axis-aligned"):
        layout.multiscale("image", tilted, SHAPES)
