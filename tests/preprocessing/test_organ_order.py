"""A body that lies the wrong way round: refused where two organ pairs prove it, said where one does, never turned."""

import numpy as np
import pytest
from atlas_samples import GEOMETRY, IDS, ORGANS, SHAPE, atlas
from whole_case import read_volume

from preprocessing.body import body_mask, complete_anatomy
from preprocessing.case import CaseError
from preprocessing.regions.class_extents import measure_extents
from preprocessing.regions.organ_order import check_order
from preprocessing.resample import resample
from preprocessing.sources.folder import FolderSource

WHOLE = atlas()
UP, BACK, LEFT = 0, 1, 2
SAID = {UP: "upside down", BACK: "back to front", LEFT: "mirrored"}


def check(anatomy: np.ndarray) -> tuple[str, ...]:
    return check_order(measure_extents(anatomy, GEOMETRY))


def only(*names: str, rest: int = 119) -> np.ndarray:
    """The atlas as a source would label it that names these organs only."""
    return np.where(np.isin(WHOLE, [IDS[name] for name in names]), WHOLE, rest).astype(np.uint8)


def renamed(anatomy: np.ndarray, names: dict[str, str]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for old, new in names.items():
        table[IDS[old]] = IDS[new]
    return table[anatomy]


def test_a_body_in_order_has_no_finding():
    assert check(WHOLE) == ()


@pytest.mark.parametrize("axis", SAID)
def test_a_flipped_body_is_refused_and_the_reason_says_how_it_lies(axis):
    with pytest.raises(CaseError, match=rf"the labels show the body {SAID[axis]}: .* correct the direction"):
        check(np.flip(WHOLE, axis))


@pytest.mark.parametrize("axis", [UP, BACK, LEFT])
def test_two_flips_are_two_wrongs(axis):
    others = tuple(a for a in (UP, BACK, LEFT) if a != axis)
    with pytest.raises(CaseError):
        check(np.flip(WHOLE, others))


def test_a_partial_map_of_two_organs_can_prove_a_mirrored_body():
    partial = only("liver", "spleen")
    assert check(partial) == ()
    with pytest.raises(CaseError, match="mirrored: liver left of spine, spine left of spleen"):
        check(np.flip(partial, LEFT))


@pytest.mark.parametrize(
    ("organs", "axis", "finding"),
    [
        (("liver",), LEFT, "organ_order: liver left of spine, as in a body mirrored"),
        (("liver", "heart"), UP, "organ_order: liver and kidneys above lungs and heart, as in a body upside down"),
        (("liver", "liver", "vertebrae_L1", "vertebrae_L2"), BACK, "organ_order: liver behind spine"),
    ],
)
def test_one_pair_alone_is_a_finding(organs, axis, finding):
    partial = only(*organs)
    assert check(partial) == ()
    findings = check(np.flip(partial, axis))
    assert [f for f in findings if f.startswith(finding)] == list(findings)
    assert findings


def test_pairs_that_disagree_prove_nothing():
    anatomy = atlas(without=("spleen",))
    z, y, x = np.nonzero(anatomy == IDS["liver"])
    anatomy[z, y, x] = 118
    anatomy[z, y, x + 46] = IDS["liver"]  # a liver on the left, the heart where it belongs
    assert check(anatomy) == ("organ_order: liver left of spine, as in a body mirrored",)


def test_names_of_paired_organs_that_are_swapped_are_refused():
    pairs = [name for name in ORGANS if name.endswith("_left") and name.replace("left", "right") in ORGANS]
    swap = {name: name.replace("left", "right") for name in pairs}
    swap |= {new: old for old, new in swap.items()}
    with pytest.raises(CaseError, match=r"left and right swapped in the names .* right lung left of left lung"):
        check(renamed(WHOLE, swap))


def test_vertebrae_in_disorder_are_a_finding_of_their_own():
    spine = [f"vertebrae_T{n}" for n in range(1, 13)]
    turned = renamed(WHOLE, dict(zip(spine, spine[::-1], strict=True)))
    assert [f for f in check(turned) if f.startswith("vertebra_order: 11 of")]


def test_two_vertebrae_out_of_place_are_no_finding():
    swapped = renamed(WHOLE, {"vertebrae_T4": "vertebrae_T5", "vertebrae_T5": "vertebrae_T4"})
    assert check(swapped) == ()


@pytest.fixture(scope="module")
def real_maps(real_data) -> dict[str, tuple[np.ndarray, object]]:
    """Real full maps at 3 mm, the body filled in."""
    maps = {}
    for case in FolderSource(path=str(real_data)).cases():
        if case.anatomy == "full":
            volume = resample(read_volume(case), 3.0)
            complete_anatomy(body_mask(volume.image, 3.0), volume.anatomy, "full")
            maps[case.id] = volume.anatomy, volume.geometry
    return maps


def test_real_bodies_lie_in_order(real_maps):
    assert real_maps.keys() == {"abdomen-3mm", "abdomen-3mm-crop", "chest-full"}
    for anatomy, geometry in real_maps.values():
        assert check_order(measure_extents(anatomy, geometry)) == ()


@pytest.mark.parametrize("axis", SAID)
@pytest.mark.parametrize("case", ["abdomen-3mm", "chest-full"])
def test_a_real_body_that_is_flipped_is_refused(real_maps, case, axis):
    anatomy, geometry = real_maps[case]
    with pytest.raises(CaseError, match=SAID[axis]):
        check_order(measure_extents(np.flip(anatomy, axis), geometry))


def test_organs_too_small_or_too_near_do_not_vote():
    tiny = np.full(SHAPE, 119, np.uint8)
    tiny[100:103, 20:23, 70:73] = IDS["liver"]
    tiny[100:103, 20:23, 5:8] = IDS["spleen"]
    assert check(tiny) == ()
