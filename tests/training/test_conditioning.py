"""Conditions: exact formulas of position and anatomy encodings."""

import math

import pytest
import torch
from coordinate_grid import coordinate_grid

from training.conditioning import (
    NULL_REGION,
    AnatomyEncoder,
    ConditionEncoder,
    Conditions,
    coordinates,
    encode_axes,
    encode_position,
    stack_axes,
)
from training.config import PRETRAIN_PRESETS, ModelConfig


def conditions(size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, size, size, size)
    return Conditions(
        region_B=torch.tensor([0, 2]),
        anatomy_BZYX=torch.randint(0, 120, shape, generator=generator),
        coordinates_BN=tuple(torch.rand(2, size, generator=generator) * 2 - 1 for _ in "zyx"),
    )


def test_a_patch_lies_where_the_formula_says():
    z, y, x = coordinates((10, 0, 3), (1, 1, 1), (40, 8, 16), (4, 8, 4))
    assert (len(z), len(y), len(x)) == (4, 8, 4)
    assert float(z[2]) == pytest.approx(2 * (12 + 0.5) / 40 - 1)
    assert float(y[5]) == pytest.approx(2 * (5 + 0.5) / 8 - 1)
    assert float(x[1]) == pytest.approx(2 * (4 + 0.5) / 16 - 1)


def test_a_wide_crop_has_its_centres_between_two_native_voxels():
    wide = coordinates((6, 6, 6), (2, 2, 2), (40, 40, 40), (4, 4, 4))
    native = coordinates((6, 6, 6), (1, 1, 1), (40, 40, 40), (8, 8, 8))
    for one, other in zip(wide, native, strict=True):
        torch.testing.assert_close(one, other.reshape(4, 2).mean(1))


def test_a_whole_region_spans_the_interval_symmetrically():
    along_z, _, _ = coordinates((0, 0, 0), (2.5, 1, 1), (10, 4, 4), (4, 4, 4))
    torch.testing.assert_close(along_z, torch.tensor([-0.75, -0.25, 0.25, 0.75]))


def test_position_is_encoded_by_sines_and_cosines_of_doubling_frequency():
    u = coordinate_grid(conditions().coordinates_BN)
    encoded = encode_position(u, 6)
    assert encoded.shape[1] == 3 + 36
    torch.testing.assert_close(encoded[:, :3], u)
    for axis in range(3):
        for k in range(6):
            angle = 2**k * math.pi * u[:, axis]
            torch.testing.assert_close(encoded[:, 3 + 6 * axis + k], angle.sin(), atol=1e-5, rtol=0)
            torch.testing.assert_close(encoded[:, 21 + 6 * axis + k], angle.cos(), atol=1e-5, rtol=0)


def test_embedded_anatomy_before_a_convolution_is_a_rank_limited_convolution_of_the_one_hot_map():
    maps = conditions()
    embed = AnatomyEncoder(ModelConfig(anatomy_encoding="embed", anatomy_channels=5))
    onehot = AnatomyEncoder(ModelConfig(anatomy_encoding="onehot"))
    convolution = torch.nn.Conv3d(5, 7, 3, padding=1, bias=False)
    factored = torch.einsum("ocxyz,ic->oixyz", convolution.weight, embed.embedding.weight)
    torch.testing.assert_close(
        convolution(embed(maps.anatomy_BZYX)),
        torch.nn.functional.conv3d(onehot(maps.anatomy_BZYX), factored, padding=1),
        atol=1e-4,
        rtol=1e-4,
    )


def test_bit_planes_spell_the_id():
    maps = conditions()
    planes = AnatomyEncoder(ModelConfig(anatomy_encoding="binary"))(maps.anatomy_BZYX)
    weights = 2 ** torch.arange(8.0).reshape(1, 8, 1, 1, 1)
    assert torch.equal((planes * weights).sum(1).long(), maps.anatomy_BZYX)


@pytest.mark.parametrize(
    ("encoding", "position", "expected"),
    [("embed", "embedding", 16 + 39), ("onehot", "coordinates", 120 + 3), ("binary", "none", 8)],
)
def test_the_channel_count_is_the_announced_one(encoding, position, expected):
    encoder = ConditionEncoder(ModelConfig(anatomy_encoding=encoding, position=position))
    encoded = encoder(torch.zeros(2, 1, 4, 4, 4), conditions())
    volume, axes = encoded.volume_BCZYX, encoded.axes_BCN
    assert volume.shape[1] - 1 + sum(axis.shape[1] for axis in axes) == encoder.num_channels == expected
    assert encoded.context_B1D.shape == (2, 1, 64)


def test_the_position_of_an_axis_is_that_of_the_whole_grid_along_it():
    axes = stack_axes([coordinates((10, 0, 3), (1, 1, 1), (40, 8, 16), (4, 8, 4))])
    z, y, x = encode_axes(axes, 3)
    whole = encode_position(coordinate_grid(axes), 3)
    torch.testing.assert_close(z[:, 0], whole[:, 0, :, 0, 0])
    torch.testing.assert_close(y[:, 1:4], whole[:, 6:9, 0, :, 0])
    torch.testing.assert_close(x[:, 4:7], whole[:, 18:21, 0, 0, :])


def test_what_is_withheld_is_null_everywhere():
    maps = conditions().without_region().without_anatomy()
    assert maps.region_B.tolist() == [NULL_REGION, NULL_REGION]
    assert maps.anatomy_BZYX.unique().tolist() == [119]


@pytest.mark.parametrize("preset", PRETRAIN_PRESETS)
def test_no_presets_finest_frequency_aliases_at_the_image_level(preset):
    """A whole region is `patch` voxels there; a period of fewer than 4 of them is noise to the network."""
    model = PRETRAIN_PRESETS[preset]().model
    u_11N = torch.linspace(-1, 1, 10_000, dtype=torch.float64).reshape(1, 1, -1)
    finest_N = encode_position(u_11N, model.position_frequencies)[0, model.position_frequencies]
    periods = float((torch.diff(torch.sign(finest_N + 1e-9)) != 0).sum()) / 2
    assert model.patch / periods == pytest.approx(4, abs=0.3)
