"""Previews: a picture of the case that a person can judge in radiological convention, and a sheet of them."""

import io

import numpy as np
import pytest
from PIL import Image
from store_samples import GEOMETRY, RECIPE, made_pyramid

from preprocessing.geometry import Geometry
from preprocessing.layout import Pyramid
from preprocessing.preview import BAR, GAP, LESION, REGION_COLOURS, TALLEST, contact_sheet, preview, preview_key
from preprocessing.regions import RegionExtent

CHEST = (RegionExtent(name="chest", z_start=0, z_stop=37),)


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def like(shown: np.ndarray, colour) -> np.ndarray:
    return np.abs(shown - colour).max(-1) < 3


def cube(shape=(40, 60, 80)) -> tuple[np.ndarray, np.ndarray]:
    image = np.full(shape, -1000, np.int16)
    return image, np.zeros(shape, np.uint8)


def planes(shown: np.ndarray, shape) -> list[np.ndarray]:
    """Axial, coronal and sagittal plane of a picture of a volume of this shape."""
    scale = TALLEST / max(shape)
    depth, height, width = (round(n * scale) for n in shape)
    sizes = ((height, width), (depth, width), (depth, height))
    tallest = max(h for h, _ in sizes)
    out, x = [], 0
    for h, w in sizes:
        y = (tallest - h) // 2
        out.append(shown[y : y + h, x : x + w])
        x += w + GAP
    return out


def test_three_planes_lie_side_by_side_in_equal_millimetres():
    image, body = cube((20, 40, 80))
    shown = picture(preview(Pyramid(GEOMETRY, (image,), (body,)), ()))
    assert shown.shape == (160 + BAR, 320 + GAP + 320 + GAP + 160, 3)


def test_the_patients_right_is_left_the_head_up_and_the_front_left_of_the_sagittal_plane():
    image, body = cube()
    body[:] = 118
    image[18:, :32, :42] = 300  # the octant that is superior, anterior and right, with the middle in it
    shown = picture(preview(Pyramid(GEOMETRY, (image,), (body,)), ()))
    for plane in planes(shown, image.shape):
        y, x = np.nonzero(plane.min(-1) > 240)
        assert y.mean() / plane.shape[0] == pytest.approx(0.27, abs=0.05)
        assert x.mean() / plane.shape[1] == pytest.approx(0.27, abs=0.05)


def test_a_lesion_is_outlined_in_red_in_every_plane_which_go_through_the_largest():
    image, body = cube()
    lesion = body.copy()
    lesion[4, 4, 4] = 1
    lesion[20:26, 30:40, 50:62] = 1
    shown = picture(preview(Pyramid(GEOMETRY, (image,), (body,), (lesion,)), CHEST))
    scale = TALLEST / 80
    for plane, (h, w) in zip(planes(shown, image.shape), ((10, 12), (6, 12), (6, 10)), strict=True):
        y, x = np.nonzero(like(plane, LESION))
        assert np.ptp(y) + 1 == pytest.approx(h * scale, abs=2)
        assert np.ptp(x) + 1 == pytest.approx(w * scale, abs=2)
        assert len(y) == pytest.approx(2 * (h + w) * scale, rel=0.05)  # an outline, no area


def test_the_ends_of_a_region_are_lines_in_the_upright_planes():
    image, body = cube()
    region = RegionExtent(name="abdomen", z_start=10, z_stop=30)
    axial, coronal, sagittal = planes(picture(preview(Pyramid(GEOMETRY, (image,), (body,)), (region,))), image.shape)
    colour = REGION_COLOURS["abdomen"]
    assert not like(axial, colour).any()
    for plane in (coronal, sagittal):
        rows = np.flatnonzero(like(plane, colour).sum(1) > plane.shape[1] / 4)
        assert rows.min() == pytest.approx(plane.shape[0] * (1 - 30 / 40), abs=2)
        assert rows.max() == pytest.approx(plane.shape[0] * (1 - 10 / 40), abs=2)


def test_organs_and_body_are_outlined_each_in_its_colour():
    image, body = cube()
    body[5:35, 5:55, 5:75] = 119
    body[10:30, 15:45, 20:60] = 5
    body[15:25, 20:40, 25:35] = 3
    axial = planes(picture(preview(Pyramid(GEOMETRY, (image,), (body,)), ())), image.shape)[0]
    colours = {tuple(c) for c in axial[axial.sum(-1) > 60].tolist()}
    assert len(colours) >= 3
    assert axial[160, 160].sum() < 60  # inside an organ nothing is tinted


def test_one_region_is_shown_in_its_window_and_several_in_a_wide_one():
    image, body = cube()
    image[:] = 240
    both = (*CHEST, RegionExtent(name="abdomen", z_start=0, z_stop=37))
    one = picture(preview(Pyramid(GEOMETRY, (image,), (body,)), both[1:]))
    two = picture(preview(Pyramid(GEOMETRY, (image,), (body,)), both))
    assert one[60, 60].tolist() == [255] * 3
    assert two[60, 60].tolist() != [255] * 3


def test_the_caption_fits_however_narrow_the_case():
    image, body = cube((200, 20, 20))
    narrow = picture(preview(Pyramid(Geometry(image.shape, (4.0,) * 3), (image,), (body,)), CHEST))
    assert narrow[-BAR:, -GAP:].max() == 0
    assert narrow[-BAR:].max() > 200


def test_the_same_case_gives_the_same_picture():
    assert preview(made_pyramid(), CHEST) == preview(made_pyramid(), CHEST)


def test_a_sheet_holds_every_case_in_rows():
    data = preview(made_pyramid(), CHEST)
    few, many = (picture(contact_sheet("made", [(str(n), data) for n in range(count)])) for count in (3, 12))
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] > 3 * few.shape[0]
    assert picture(contact_sheet("made", [("one", data)])).shape[1] == few.shape[1] / 3


def test_a_sheet_shows_the_first_sixty_and_says_how_many_there_are():
    data = preview(made_pyramid(), CHEST)
    sixty, more = (picture(contact_sheet("made", [("x", data)] * count)) for count in (60, 75))
    assert sixty.shape == more.shape
    assert (sixty[:20] != more[:20]).any()


def test_a_preview_lies_outside_the_case_and_its_seal():
    key = preview_key(RECIPE, "made", "one", "0" * 16)
    assert key == f"previews/{RECIPE.fingerprint}/made/one-{'0' * 16}.png"
