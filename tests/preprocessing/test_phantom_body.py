"""The phantom's anatomy: classes, sides, volumes, and an image that the label map does not determine."""

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from preprocessing.anatomy import BODY, class_ids, class_names
from preprocessing.sources.phantom.body import paint_patient
from preprocessing.sources.phantom.lesions import paint_lesions
from preprocessing.sources.phantom.patient import draw_patient, draw_scan
from preprocessing.sources.phantom.texture import add_texture

ID = class_ids()
LOBES = [i for name, i in ID.items() if name.startswith("lung_")]
NECK = [ID[f"vertebrae_C{n}"] for n in range(1, 8)]


@cache
def phantom(index: int, resolution="tiny"):
    """(scan, canvas, lesion mask, clean HU, mL of every class id)."""
    scan = draw_scan(3, index, 0, resolution)
    canvas = paint_patient(scan)
    lesions = paint_lesions(canvas, scan)
    hu = add_texture(canvas, scan)
    voxel_ml = float(np.prod(scan.geometry.spacing_mm)) / 1000
    return scan, canvas, lesions, hu, np.bincount(canvas.labels.ravel(), minlength=120) * voxel_ml


def centre(canvas, *ids):
    """Mean array index (z, y, x) of the voxels of some classes."""
    return np.argwhere(np.isin(canvas.labels, ids)).mean(0)


def test_a_whole_body_has_most_of_the_classes_and_no_others():
    _, canvas, _, _, ml = phantom(0)
    present = {int(i) for i in np.unique(canvas.labels)}
    assert present <= {0, *range(1, 119)}
    assert len(present - {0, BODY}) >= 100
    assert ml[BODY] > 10_000


def test_right_is_right_and_left_is_left():
    _, canvas, *_ = phantom(0)
    middle = centre(canvas, ID["spinal_cord"])[2]
    assert centre(canvas, ID["liver"])[2] < middle < centre(canvas, ID["spleen"])[2]
    assert middle < centre(canvas, ID["heart"])[2]
    pairs = [(i, ID.get(name.replace("left", "right"), 0)) for name, i in ID.items() if "_left" in name]
    for left, right in [p for p in pairs if p[1] and np.isin(p, canvas.labels).all()]:
        assert centre(canvas, right)[2] < centre(canvas, left)[2], class_names()[left]


def test_the_back_is_at_the_back_and_the_spine_in_order():
    _, canvas, *_ = phantom(0)
    assert centre(canvas, ID["sternum"])[1] < centre(canvas, ID["heart"])[1] < centre(canvas, ID["aorta"])[1]
    assert centre(canvas, ID["aorta"])[1] < centre(canvas, ID["autochthon_left"], ID["autochthon_right"])[1]
    order = ["sacrum", *(f"vertebrae_L{n}" for n in range(5, 0, -1)), *(f"vertebrae_T{n}" for n in range(12, 0, -1))]
    heights = [
        centre(canvas, ID[name])[0] for name in (*order, "vertebrae_C6", "vertebrae_C4", "vertebrae_C2", "brain")
    ]
    assert heights == sorted(heights)


@pytest.mark.parametrize("index", range(10))
def test_every_view_holds_the_regions_it_declares(index):
    scan, _, _, _, ml = phantom(index)
    regions = scan.view.regions
    if "head_neck" in regions:
        assert ml[ID["brain"]] > 700
        assert (ml[NECK] >= 1).sum() >= 3
    if "chest" in regions:
        assert 1500 < ml[LOBES].sum() < 9000
        assert ml[LOBES].min() > 50
        assert 250 < ml[ID["heart"]] < 1000
    if "abdomen" in regions:
        assert 700 < ml[ID["liver"]] < 2600
        assert ml[ID["kidney_left"]] > 50
        assert ml[ID["kidney_right"]] > 50
        assert 60 < ml[ID["spleen"]] < 500
    length_mm = scan.geometry.shape[0] * scan.geometry.spacing_mm[0]
    assert length_mm > (96 if regions == ("head_neck",) else 128)


def test_tissues_have_plausible_hounsfield_values():
    for index in (0, 1, 5):
        scan, canvas, _, hu, _ = phantom(index, "tiny")
        middle = {name: np.median(hu[canvas.labels == i]) for name, i in ID.items() if (canvas.labels == i).sum() > 200}
        assert -930 < middle["lung_lower_lobe_left"] < -650
        assert 30 < middle["liver"] < 145
        assert 25 < middle["autochthon_left"] < 75
        assert middle["hip_left"] > 100
        assert np.median(hu[canvas.labels == 0]) < -990
        assert np.abs(middle["liver"] - scan.hu["liver"]) < 20


def test_labels_do_not_determine_the_image():
    _, canvas, _, hu, _ = phantom(0)
    for name, least in (("lung_lower_lobe_left", 30), ("liver", 4), ("autochthon_left", 4)):
        assert hu[canvas.labels == ID[name]].std() > least, name
    livers = [draw_scan(3, index).hu["liver"] for index in range(40)]
    assert np.std(livers) > 12
    assert len({draw_scan(3, index).phase for index in range(40)}) == 4
    again = paint_patient(draw_scan(3, 0, 1, "tiny"))
    assert again.hu[again.labels == ID["liver"]].mean() != canvas.hu[canvas.labels == ID["liver"]].mean()


def test_texture_is_correlated():
    _, canvas, _, hu, _ = phantom(0, "tiny")
    rough = hu - correlate1d(canvas.hu, (0.14, 0.72, 0.14), axis=0)
    inside = (canvas.labels == ID["liver"])[:, :, :-1] & (canvas.labels == ID["liver"])[:, :, 1:]
    assert np.corrcoef(rough[:, :, :-1][inside], rough[:, :, 1:][inside])[0, 1] > 0.2


def test_borders_are_shared_between_tissues():
    _, canvas, *_ = phantom(0)
    between = (canvas.hu > -900) & (canvas.hu < -200) & (canvas.labels == BODY)
    assert between.sum() > 0.01 * (canvas.labels == BODY).sum()


def test_lesions_keep_their_organs_label_and_change_the_image():
    found = set()
    for index in range(10):
        scan, canvas, lesions, *_ = phantom(index)
        found |= {lesion.kind for lesion in scan.lesions}
        assert bool(scan.lesions) == bool(lesions.any())
        assert set(np.unique(canvas.labels[lesions > 0])) <= {*LOBES, ID["liver"], BODY}
        if [lesion.kind for lesion in scan.lesions] == ["lung_nodule"]:
            assert canvas.hu[lesions > 0].mean() > -500
    assert found == {"lung_nodule", "liver_lesion", "mediastinal_node", "abdominal_node"}


def test_about_half_have_lesions_and_most_nodules_are_seen_at_four_millimetres():
    scans = [draw_scan(0, index) for index in range(200)]
    assert 0.4 < np.mean([bool(scan.lesions) for scan in scans]) < 0.65
    radii = [lesion.radius_mm for scan in scans for lesion in scan.lesions if lesion.kind == "lung_nodule"]
    assert np.mean(np.array(radii) >= 12) > 0.6


def test_patients_differ_and_visits_of_one_patient_share_the_body():
    assert draw_patient(0, 7) == draw_scan(0, 7, 0).patient == draw_scan(0, 7, 1).patient
    assert draw_scan(0, 7, 0).geometry != draw_scan(0, 7, 1).geometry
    assert draw_patient(0, 7) != draw_patient(1, 7)
    assert draw_patient(0, 7).scale != draw_patient(0, 8).scale
