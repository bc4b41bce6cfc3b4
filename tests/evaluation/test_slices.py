"""The slices of a slider: in order, with their place, and each one the slice that it says it is."""

import io

import numpy as np
import pytest
from PIL import Image
from report_example import Panel, Picture

from evaluation.pictures import scale_of
from evaluation.slices import EDGE, MOST, chosen, slices_of, start_of, strip_of_slices
from preprocessing.regions import WINDOWS, Window


def picture(shape, **more):
    """Slice k is k of the window's range."""
    window = WINDOWS["chest"]
    z = np.linspace(window.low_hu, window.high_hu, shape[0])
    return Picture("p", [Panel("a", np.broadcast_to(z[:, None, None], shape).astype(np.float32), window)], **more)


@pytest.mark.parametrize(("size", "start"), [(2, 0), (12, 5), (48, 47), (160, 77), (801, 3)])
def test_slices_are_evenly_chosen_ends_and_start_among_them(size, start):
    found = chosen(size, start)
    assert len(found) == min(size, MOST)
    assert found == sorted(set(found))
    assert start in found
    assert found[0] in {0, start}
    assert found[-1] in {size - 1, start}
    assert max(np.diff(found)) <= 2 * size / len(found) + 1


def test_a_label_names_slice_and_height_from_the_feet_up():
    first, *_, last = slices_of(picture((10, 4, 4), z_mm=(-40.0, 2.5)))
    assert (first.index, first.label, first.share) == (0, "slice 1 of 10, z = −40 mm", 0.95)
    assert (last.index, last.label, last.share) == (9, "slice 10 of 10, z = −18 mm", 0.05)
    assert slices_of(picture((10, 4, 4)))[0].label == "slice 1 of 10"


def test_a_picture_of_one_slice_or_of_unlike_panels_has_no_slider():
    assert slices_of(picture((1, 4, 4))) == []
    unlike = Picture("p", [*picture((4, 4, 4)).panels, *picture((5, 4, 4)).panels])
    assert slices_of(unlike) == []
    assert start_of(picture((9, 4, 4), centre_zyx=(2, 1, 1))) == 2


def test_the_strip_holds_each_slice_in_its_place():
    shown = picture((6, 40, 50))
    strip = np.asarray(Image.open(io.BytesIO(strip_of_slices(shown.panels[0], range(6)))).convert("L"), float)
    assert strip.shape == (240, 50)
    np.testing.assert_allclose(strip.reshape(6, 40, 50).mean((1, 2)), np.linspace(0, 255, 6), atol=4)


def test_large_slices_are_shrunk_and_label_ids_stay_exact():
    large = strip_of_slices(picture((3, 300, 260)).panels[0], range(3))
    assert Image.open(io.BytesIO(large)).size == (86, 300)
    assert max(86, 300 // 3) <= EDGE
    ids = np.random.default_rng(0).integers(0, 119, (2, 20, 20)).astype(np.float32)
    tiles = np.asarray(Image.open(io.BytesIO(strip_of_slices(Panel("ids", ids), [0, 1]))).convert("RGB"))
    same = ids.reshape(40, 20)
    for value in np.unique(same)[:20]:
        assert len(np.unique(tiles[same == value], axis=0)) == 1


def test_equal_panels_give_equal_bytes():
    assert strip_of_slices(picture((3, 9, 9)).panels[0], [0, 2]) == strip_of_slices(
        picture((3, 9, 9)).panels[0], [0, 2]
    )


@pytest.mark.parametrize("window", [Window(450, 0), None])
def test_a_colour_map_keeps_its_colours(window):
    panel = Panel("map", np.random.default_rng(0).normal(0, 90, (3, 20, 16)).astype(np.float32), window)
    shown = np.asarray(Image.open(io.BytesIO(strip_of_slices(panel, range(3)))).convert("RGB"))
    np.testing.assert_array_equal(shown, scale_of(panel).paint(panel.image.reshape(60, 16)))


def test_grey_is_near_what_it_shows():
    panel = Panel("ct", np.random.default_rng(0).normal(-400, 60, (3, 40, 32)).astype(np.float32), WINDOWS["chest"])
    shown = np.asarray(Image.open(io.BytesIO(strip_of_slices(panel, range(3)))).convert("L"), float)
    assert np.abs(shown - scale_of(panel).paint(panel.image.reshape(120, 32))[..., 0]).mean() < 0.02 * 255
