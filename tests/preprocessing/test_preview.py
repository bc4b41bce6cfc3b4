"""Previews: a picture of the case that a person can judge, and a sheet of them."""

import io

import numpy as np
from matplotlib import image as png
from store_samples import GEOMETRY, RECIPE, SHAPE, made_pyramid

from preprocessing.layout import Pyramid
from preprocessing.preview import contact_sheet, preview, preview_key
from preprocessing.regions import RegionExtent

CHEST = (RegionExtent(name="chest", z_start=0, z_stop=37),)


def picture(data: bytes) -> np.ndarray:
    return png.imread(io.BytesIO(data))[..., :3]


def test_three_planes_lie_side_by_side():
    depth, height, width = SHAPE
    shown = picture(preview(made_pyramid(), CHEST))
    assert shown.shape == (max(height, depth), 2 * width + height + 12, 3)


def test_a_lesion_is_outlined_in_red_and_the_planes_go_through_it():
    red = (picture(preview(made_pyramid(), CHEST)) - [1.0, 0.25, 0.2]).__abs__().max(-1) < 0.01
    _, height, width = SHAPE
    for start, stop in ((0, width), (width + 4, 2 * width + 4), (2 * width + 8, 2 * width + 8 + height)):
        assert red[:, start:stop].sum() == 8


def test_superior_is_up():
    image = np.full((20, 20, 20), -1000, np.int16)
    image[15:] = 300
    body = np.where(image > 0, 118, 0).astype(np.uint8)
    shown = picture(preview(Pyramid(GEOMETRY, (image,), (body,)), ()))
    coronal = shown[:, 24:44]
    assert coronal[:4].mean() > 0.8
    assert coronal[8:].mean() < 0.2


def test_the_same_case_gives_the_same_picture():
    assert preview(made_pyramid(), CHEST) == preview(made_pyramid(), CHEST)


def test_a_sheet_holds_every_case():
    data = preview(made_pyramid(), CHEST)
    few, many = (picture(contact_sheet("made", [(str(n), data) for n in range(count)])) for count in (3, 12))
    assert many.shape[0] > few.shape[0]
    assert many.mean() > few.mean() * 0.9


def test_a_preview_lies_outside_the_case_and_its_seal():
    key = preview_key(RECIPE, "made", "one", "0" * 16)
    assert key == f"previews/{RECIPE.fingerprint}/made/one-{'0' * 16}.png"
