"""What segmenters find again: Dice of organs and lesions by hand, and TotalSegmentator's command in their place."""

from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.segmenters import LakeSegmenter, ToolSegmenter, anatomy_dice, lesion_dice
from infra.errors import UserError
from preprocessing import recipe
from preprocessing.anatomy import BODY, UNKNOWN, class_ids
from preprocessing.regions import WINDOWS
from training.config import SegmenterConfig
from training.segmentation import Segmentation
from training.segmenter import label_table

LIVER, SPLEEN = class_ids()["liver"], class_ids()["spleen"]
WINDOW, SPACING = WINDOWS["abdomen"], (4.0, 4.0, 4.0)


def world():
    """A map: a liver, a spleen, body around them, and a corner that nobody labelled."""
    anatomy = np.full((8, 8, 8), BODY, np.uint8)
    anatomy[:3], anatomy[3:5] = LIVER, SPLEEN
    anatomy[0, 0] = UNKNOWN
    return anatomy


class Trained:
    """Finds what it is told to find."""

    fingerprint = "abcdef0123456789"
    network = SimpleNamespace(labels=label_table(SegmenterConfig()))

    def __init__(self, anatomy, lesion=None):
        self.found = Segmentation(anatomy, anatomy > BODY if lesion is None else lesion)

    def segment(self, x_ZYX):
        return self.found


def dice_of(found):
    return anatomy_dice(LakeSegmenter(Trained(found)), np.zeros((8, 8, 8)), world(), WINDOW, SPACING)


def test_dice_is_the_mean_over_organs_whatever_their_size():
    assert dice_of(world()) == ("dice_anatomy[segmenter abcdef01]", "1", 1.0, "")
    found = world()
    found[found == SPLEEN] = BODY
    assert dice_of(found).value == pytest.approx(1 / 2)


def test_half_a_liver_is_two_thirds():
    found = np.where(world() == LIVER, BODY, world()).astype(np.uint8)
    found[:3, :, :4] = np.where(world()[:3, :, :4] == LIVER, LIVER, BODY)
    half = (found == LIVER).sum() / (world() == LIVER).sum()
    assert dice_of(found).value == pytest.approx((1 + 2 * half / (1 + half)) / 2)


def test_neither_the_body_nor_what_nobody_labelled_counts():
    found = world()
    found[5:], found[0, 0] = 0, SPLEEN
    assert dice_of(found).value == 1


def test_a_map_without_organs_has_no_number_but_a_reason():
    measured = anatomy_dice(LakeSegmenter(Trained(world())), world(), np.full((8, 8, 8), BODY), WINDOW, SPACING)
    assert np.isnan(measured.value)
    assert measured.reason == "no organ has 10 voxels in the map"


def test_a_lesion_that_is_not_seen_is_zero():
    mask = np.zeros((8, 8, 8), bool)
    mask[2:4, 2:4, 2:4] = True
    for seen, expected in ((mask, 1.0), (np.roll(mask, 1, 0), 0.5), (~mask & False, 0.0)):
        measured = lesion_dice(LakeSegmenter(Trained(world(), seen)), np.zeros((8, 8, 8)), mask)
        assert measured == ("dice_lesion[segmenter abcdef01]", "1", expected, "")


def test_totalsegmentator_reads_the_image_in_hu_at_its_spacing(segmentation_tool):
    anatomy = np.full((8, 10, 12), BODY, np.uint8)
    anatomy[:4], anatomy[4:6] = LIVER, class_ids()["vertebrae_L3"]
    hu = np.select([anatomy == LIVER, anatomy != BODY], [60.0, 210.0], -300.0)
    found_by = ToolSegmenter(recipe.Segmenter(fast=True))
    measured = anatomy_dice(found_by, WINDOW.normalise(hu), anatomy, WINDOW, (3.0, 2.0, 2.0))
    assert measured.metric == "dice_anatomy[totalsegmentator 2.18.0 fast]"
    assert measured.value > 0.4


def test_where_the_tool_is_missing_it_says_so(monkeypatch):
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR", "/nowhere/TotalSegmentator")
    with pytest.raises(UserError, match="no such command at /nowhere"):
        anatomy_dice(ToolSegmenter(recipe.Segmenter()), np.zeros((8, 8, 8)), world(), WINDOW, SPACING)
