"""The six tasks on a small made-up lake: rows, contracts, and what may never reach the network."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from task_worlds import LIVER, make_context, small_config, store_case, value, volume

from evaluation.config import TASKS, Checkpoint, EvaluateConfig, evaluate_key, paper, tiny
from evaluation.metrics import distance_hu
from evaluation.segmenters import LakeSegmenter
from evaluation.tasks import run_task
from evaluation.tasks.crop import Crop, Subject, crop_around, crop_body
from evaluation.tasks.lesion import held_out_lesions, lesion_sample, training_lesions
from evaluation.tasks.organ import organ_zone
from evaluation.tasks.superresolution import calibrated
from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.anatomy import BODY, UNKNOWN, class_ids
from preprocessing.recipe import Segmenter
from preprocessing.regions import WINDOWS, RegionExtent
from preprocessing.store import open_case
from training.config import SegmenterConfig
from training.depth_operator import DepthOperator
from training.segmentation import Segmentation
from training.segmenter import label_table

BLIND = ("denoising", "anomaly", "superresolution")
COLUMNS = {
    "checkpoint", "task", "dataset", "region", "setting", "method", "seed", "case", "patient", "patients", "metric",
    "unit", "value", "reason",
}  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    plan = [("train", True), ("train", False), ("val", False), ("val", True), ("test", True), ("test", False)]
    rows = [store_case(lake, number, split, lesion) for number, (split, lesion) in enumerate(plan)]
    return lake, rows


@pytest.mark.parametrize("task", TASKS)
def test_a_task_gives_tidy_rows_with_a_number_or_a_reason_and_pictures_on_one_grid(stored, task):
    context = make_context(stored)
    result = run_task(task, context)
    assert all(set(row) == COLUMNS for row in result.rows)
    assert {row["task"] for row in result.rows} == {task}
    assert all(math.isfinite(row["value"]) or row["reason"] for row in result.rows)
    assert any(row["method"].startswith("ours") and math.isfinite(row["value"]) for row in result.rows)
    assert context.evaluations == sum(len(n.calls) for n in (context.base, *context.controls.values())) > 0
    assert result.pictures
    for picture in result.pictures:
        assert len({np.shape(panel.image) for panel in picture.panels}) == 1
        assert all(np.isfinite(panel.image).all() for panel in picture.panels)


@pytest.mark.parametrize("task", BLIND)
def test_the_references_labels_never_reach_the_network_of_a_blind_task(stored, task):
    context = make_context(stored)
    run_task(task, context)
    networks = [n for n in (context.base, *context.controls.values()) if n.calls]
    assert networks
    for network in networks:
        assert (network.anatomy_seen == UNKNOWN).all()


@pytest.mark.parametrize("task", BLIND)
def test_a_blind_tasks_network_is_fed_the_same_whatever_the_labels_are(stored, task, monkeypatch):
    """Beyond the anatomy channel: with the organs renamed, no value that enters the network moves."""

    def entered(rename):
        with monkeypatch.context() as patch:
            read = Crop.labels
            if rename:
                patch.setattr(
                    Crop,
                    "labels",
                    lambda self, name="anatomy": _renamed(read(self, name)) if name == "anatomy" else read(self, name),
                )
            context = make_context(stored, small_config(tasks=(task,)))
            if task == "anomaly":
                context.config = context.config.replace(anomaly=context.config.anomaly.replace(cases=1))
            run_task(task, context)
            return [x for n in (context.base, *context.controls.values()) for x, _, _, _ in n.calls]

    plain, renamed = entered(rename=False), entered(rename=True)
    assert len(plain) == len(renamed)
    assert all(torch.equal(a, b) for a, b in zip(plain, renamed, strict=True))


def _renamed(anatomy):
    """The body's class for another organ's; the liver keeps its name, it says where to look."""
    return np.where(anatomy == BODY, class_ids()["spleen"], anatomy).astype(np.uint8)


def test_a_blind_scene_cannot_be_given_labels(stored):
    crop = _crop(stored, (8, 8, 8))
    assert (crop.labels() != UNKNOWN).all()
    assert (crop.blind_scene().anatomy_ZYX == UNKNOWN).all()
    assert Crop.blind_scene.__annotations__.keys() == {"control_CZYX", "return"}


def _subject(stored, number=4, region="abdomen"):
    lake, rows = stored
    case = open_case(lake, rows[number].key)
    extent = next(e for e in case.record.regions if e.name == region)
    return Subject(case, "made-up", rows[number].case, rows[number].patient, extent)


def _crop(stored, field, region="abdomen"):
    return crop_body(_subject(stored, region=region), field)


def test_a_crop_reads_its_box_of_the_region(stored):
    crop = crop_around(_subject(stored, region="chest"), (10, 20, 20), (8, 8, 8))
    z, y, x = crop.start_zyx
    expected = volume(4, True)["image"][z + 4 : z + 12, y : y + 8, x : x + 8]
    np.testing.assert_array_equal(crop.hu(), expected)
    assert crop.blind_scene().start_zyx == (z, y, x)
    assert crop.blind_scene().canvas_zyx == (20, 40, 40)


def test_a_region_smaller_than_the_crop_is_padded_with_air_and_no_label_on_a_padded_canvas(stored):
    crop = crop_around(_subject(stored, region="chest"), (10, 20, 20), (30, 8, 8))
    assert crop.start_zyx[0] == -5
    hu, labels = crop.hu(), crop.labels()
    assert (hu[:5] == -1024).all()
    assert (hu[25:] == -1024).all()
    assert (labels[:5] == 0).all()
    assert (hu[5:25] > -1024).all()
    scene = crop.blind_scene()
    assert (scene.start_zyx[0], scene.canvas_zyx[0]) == (0, 30)


def test_a_crop_stays_inside_the_region(stored):
    crop = crop_around(_subject(stored), (0, 39, 20), (8, 8, 8))
    assert crop.start_zyx == (0, 32, 16)


def test_denoising_measures_gains_against_the_noise_free_companion_beside_its_baselines(stored):
    rows = run_task("denoising", make_context(stored)).rows
    methods = {row["method"] for row in rows}
    assert methods == {
        "noisy", "gaussian", "tv", "nlm", "label-mean", "ours-mean", "ours-restore", "ours-sample", "ceiling",
    }  # fmt: skip
    assert {row["setting"] for row in rows} == {"sigma=0.15", "low_dose"}
    assert value(rows, method="noisy", metric="psnr_gain", setting="sigma=0.15") == 0
    assert value(rows, method="tv", metric="psnr_gain", setting="sigma=0.15", region="abdomen") > 3
    assert value(rows, method="tv", metric="psnr_gain", setting="low_dose", region="abdomen") > 3
    psnr = value(rows, method="noisy", metric="psnr", setting="sigma=0.15", region="chest")
    assert psnr == pytest.approx(20 * math.log10(2 / 0.15), abs=0.3)
    assert all("noise_free" in row["unit"] for row in rows if row["metric"] == "psnr")
    for metric in ("edge_sharpness", "nps_mean_frequency", "nps_peak_frequency"):
        assert {row["method"] for row in rows if row["metric"] == metric} == methods - {"ceiling"}
    ceiling = value(rows, method="ceiling", metric="psnr_gain_vs_image", region="abdomen")
    assert ceiling == pytest.approx(20 * math.log10(0.15 / (10 / 180)), abs=0.3)


def test_denoising_says_what_each_method_costs(stored):
    config = small_config()
    own = config.denoising.replace(restore_steps=3, sample_steps=4)
    rows = run_task("denoising", make_context(stored, config.replace(denoising=own))).rows
    cost = {(r["setting"], r["method"]): r["value"] for r in rows if r["metric"] == "noise_estimates"}
    assert {m: cost["sigma=0.15", m] for m in ("tv", "ours-mean", "ours-restore", "ours-sample")} == {
        "tv": 0, "ours-mean": 1, "ours-restore": 3, "ours-sample": 4
    }  # fmt: skip
    assert ("low_dose", "ours-restore") not in cost
    assert ("sigma=0.15", "noisy") not in cost


def test_denoising_asks_the_network_at_the_noise_level(stored):
    context = make_context(stored, small_config())
    run_task("denoising", context)
    times = {int(t) for _, t_B, _, _ in context.base.calls for t in t_B}
    assert 87 in times  # σ̄_87 = .15


def test_without_companions_the_stored_image_is_the_reference_and_low_dose_says_it_is_missing(stored, monkeypatch):
    monkeypatch.setattr(Subject, "has", lambda self, companion: False)
    rows = run_task("denoising", make_context(stored)).rows
    reasons = [row["reason"] for row in rows if "low_dose" in row["reason"]]
    assert len(reasons) == 1
    assert all("against image" in row["unit"] for row in rows if row["metric"] == "psnr" and not row["reason"])


def test_noise_of_a_case_does_not_depend_on_the_other_cases(stored):
    config = small_config()
    few = config.replace(denoising=config.denoising.replace(cases=1))
    two, one = (run_task("denoising", make_context(stored, c)).rows for c in (config, few))
    wanted = {"method": "noisy", "metric": "rmse", "setting": "sigma=0.15", "case": "case-4", "region": "chest"}
    assert value(two, **wanted) == value(one, **wanted)


def test_anomaly_scores_the_lesion_within_the_organ(stored):
    rows = run_task("anomaly", make_context(stored)).rows
    assert value(rows, method="organ-median", metric="auroc_px_organ", setting="t=500") > 0.9
    assert value(rows, method="organ-mask", metric="auroc_px_organ") == 0.5
    assert value(rows, method="organ-mask", metric="auroc_px_all", setting="t=500") > 0.8
    assert value(rows, method="organ-mask", metric="pro_organ", setting="t=500") == pytest.approx(0.15)
    assert value(rows, method="organ-mask", metric="pro_all", setting="t=500") > 0.5
    assert {row["method"] for row in rows if row["metric"] == "auroc_image"} == {
        "ours", "ours-centred", "organ-median", "organ-noise", "organ-mask", "label-mean",
    }  # fmt: skip


def test_anomaly_keeps_what_lies_outside_the_organ(stored):
    """At the last step everything outside the organ is the source at t = 0, whose σ̄ is .006."""
    context = make_context(stored)
    picture = run_task("anomaly", context).pictures[0]
    panels = {panel.caption: panel.image for panel in picture.panels}
    outside = panels["anomaly map"] == 0
    assert outside.any()
    window = picture.panels[0].window
    drawn, image = panels["organ drawn again"], np.clip(panels["image"], window.low_hu, window.high_hu)
    np.testing.assert_allclose(drawn[outside], image[outside], atol=1e-3)
    assert np.abs(drawn - image)[~outside].max() > 1


def test_the_organ_zone_has_no_hole_at_a_lesion():
    anatomy = np.zeros((9, 9, 9), np.uint8)
    anatomy[1:8, 1:8, 1:8] = LIVER
    whole = organ_zone(anatomy, np.zeros_like(anatomy), "liver")
    lesion = np.zeros_like(anatomy)
    lesion[3:6, 3:6, 3:6] = 1
    holed = np.where(lesion, 0, anatomy)
    elsewhere = lesion.copy()
    elsewhere[0, 0, 0] = 1
    np.testing.assert_array_equal(organ_zone(holed, elsewhere, "liver"), whole)
    np.testing.assert_array_equal(organ_zone(holed, np.zeros_like(lesion), "liver"), whole)


def test_superresolution_gives_the_network_the_interpolated_image_as_control(stored):
    context = make_context(stored)
    rows = run_task("superresolution", context).rows
    methods = {row["setting"]: {r["method"] for r in rows if r["setting"] == row["setting"]} for row in rows}
    common = {"linear", "bspline", "label-mean", "ours"}
    assert methods == {"x2 mean": common, "x2 gaussian": common | {"ours-uncalibrated"}}
    assert not context.base.calls
    control = context.controls["superresolution"].calls[0][3]
    assert control.shape[1:] == (1, 8, 8, 8)
    means = control.unflatten(2, (4, 2)).mean(3)
    assert torch.isfinite(means).all()
    assert value(rows, method="ours", metric="psnr") > 10
    ours, uncalibrated = (
        value(rows, method=method, metric="operator_error", setting="x2 gaussian")
        for method in ("ours", "ours-uncalibrated")
    )
    assert ours < 0.1 * uncalibrated


@pytest.mark.parametrize("profile", ["mean", "gaussian"])
def test_the_operator_of_superresolution_is_chosen_on_training_cases(stored, profile):
    trained = make_context(stored, rows=[row for row in stored[1] if row.split == "train"])
    found, true = calibrated(trained, profile), DepthOperator.of(profile, 2)
    assert (found.profile, found.offset) == (true.profile, true.offset)
    assert found.width == pytest.approx(true.width, abs=0.03)


def test_superresolution_refuses_a_field_that_the_factor_does_not_divide(stored):
    config = small_config()
    odd = config.replace(superresolution=config.superresolution.replace(factor=3))
    with pytest.raises(UserError, match="factor 3"):
        run_task("superresolution", make_context(stored, odd))


def test_lesion_masks_reach_the_controlnet_as_minus_one_and_one_with_the_real_anatomy(stored):
    context = make_context(stored)
    rows = run_task("lesion-generation", context).rows
    assert {row["method"] for row in rows} == {"real", "constant-hu", "no-controlnet", "ours"}
    network = context.controls["lesion"]
    control = network.calls[0][3]
    assert set(control.unique().tolist()) == {-1.0, 1.0}
    assert LIVER in network.anatomy_seen
    assert LIVER in context.base.anatomy_seen
    assert value(rows, method="real", metric="contrast_error") == 0
    assert value(rows, method="real", metric="contrast", region="abdomen") < -20


def test_inpainting_returns_known_voxels_exactly(stored):
    rows = run_task("lesion-inpainting", make_context(stored)).rows
    assert {row["method"] for row in rows} == {"real", "constant-hu", "no-controlnet", "ours"}
    for method in ("no-controlnet", "ours"):
        assert value(rows, method=method, metric="known_change") == 0
    assert value(rows, method="real", metric="seam_ratio") == 1
    assert not math.isnan(value(rows, method="ours", metric="dice[threshold-segmenter]"))


def test_inpainting_without_a_controlnet_walks_the_same_way_from_the_same_noise(stored):
    context = make_context(stored)
    run_task("lesion-inpainting", context)
    plain, controlled = context.base.calls, context.controls["lesion"].calls
    assert [t.tolist() for _, t, _, _ in plain] == [t.tolist() for _, t, _, _ in controlled]
    assert torch.equal(plain[0][0], controlled[0][0])


@pytest.mark.parametrize("task", ["lesion-generation", "lesion-inpainting"])
def test_lesions_are_compared_with_those_of_training_cases_alone(tmp_path, task):
    lake, contrasts = open_lake(str(tmp_path)), (-60, 60)
    rows = [
        store_case(lake, number, split, True, contrast_hu=contrast)
        for number, (split, contrast) in enumerate(zip(("train", "test"), contrasts, strict=True))
    ]
    dark, bright = (volume(number, True, contrast) for number, contrast in enumerate(contrasts))
    apart = bright["image"][bright["lesion"] > 0].mean() - dark["image"][dark["lesion"] > 0].mean()
    found = run_task(task, make_context((lake, rows))).rows
    wanted = {"metric": "hu_histogram_distance", "region": "abdomen"}
    assert value(found, method="real", **wanted) == pytest.approx(apart, abs=0.5)
    assert value(found, method="constant-hu", **wanted) < 20
    assert {row["method"] for row in found if row["metric"] == "hu_histogram_distance"} == {
        "real", "constant-hu", "no-controlnet", "ours",
    }  # fmt: skip


def test_a_constant_has_the_training_lesions_mean_but_not_their_spread(stored):
    context = make_context(stored)
    lesions = training_lesions(context)["abdomen"]
    inside = volume(0, True)["image"][volume(0, True)["lesion"] > 0]
    assert lesions.mean_hu == pytest.approx(inside.mean())
    assert distance_hu(lesions.hu, inside) < 0.5
    rows = run_task("lesion-generation", context).rows
    expected = np.abs(inside - inside.mean()).mean()
    pasted = value(rows, method="constant-hu", metric="hu_histogram_distance", region="abdomen")
    assert pasted == pytest.approx(expected, abs=0.5)
    assert value(rows, method="real", metric="hu_histogram_distance", region="abdomen") < pasted


def test_lesions_that_differ_between_patients_are_the_training_lesions_again_when_pooled(tmp_path):
    """One patient's dark, one's bright: each alone is far from the population, both together are it."""
    lake, contrasts = open_lake(str(tmp_path)), (-60, 60)
    rows = [
        store_case(lake, number, split, True, contrast_hu=contrasts[number % 2])
        for number, split in enumerate(("train", "train", "test", "test"))
    ]
    config = small_config()
    context = make_context((lake, rows), config.replace(lesion_generation=config.lesion_generation.replace(cases=4)))
    found = run_task("lesion-generation", context).rows
    alone, pooled = "hu_histogram_distance", "hu_histogram_distance_pooled"
    assert value(found, method="real", metric=alone, region="abdomen") > 40
    assert value(found, method="real", metric=pooled, region="abdomen") < 5
    assert value(found, method="constant-hu", metric=pooled, region="abdomen") > 40


def test_without_training_lesions_their_distance_is_a_row_with_the_reason(stored):
    lake, rows = stored
    context = make_context((lake, [row for row in rows if not (row.split == "train" and row.lesion)]))
    found = run_task("lesion-generation", context).rows
    reasons = {r["reason"] for r in found if r["metric"].startswith("hu_histogram_distance")}
    assert reasons == {f"no training case of region {region!r} has a lesion" for region in ("chest", "abdomen")}
    assert math.isfinite(value(found, method="constant-hu", metric="contrast"))


def test_the_largest_held_out_lesion_is_in_the_crop(stored):
    context = make_context(stored)
    samples = held_out_lesions(context, context.config.lesion_generation)
    assert [s.crop.subject.region for s in samples] == ["chest", "abdomen"]
    assert all(s.crop.subject.case == "case-4" for s in samples)
    assert all(s.lesion.sum() == volume(4, True)["lesion"].sum() for s in samples)


def test_a_lesion_that_the_regions_border_cuts_is_not_judged_there(stored):
    subject = _subject(stored, region="chest")
    config = small_config().lesion_generation
    assert lesion_sample(subject, config) is not None
    z = np.nonzero(volume(4, True)["lesion"])[0]
    cut = replace(subject, extent=RegionExtent(name="chest", z_start=int(z.min()) + 1, z_stop=24))
    assert lesion_sample(cut, config) is None


def test_without_a_controlnet_the_table_says_so_and_the_rest_is_measured(stored):
    for task, reason in (("superresolution", "super-resolution"), ("lesion-generation", "lesions")):
        rows = run_task(task, make_context(stored, controls=())).rows
        assert [r["reason"] for r in rows if r["method"] == "ours"] == [f"no ControlNet for {reason} was given"]
        assert any(math.isfinite(row["value"]) for row in rows)


def test_without_lesions_the_lesion_tasks_say_so(stored):
    lake, rows = stored
    for task in ("lesion-generation", "lesion-inpainting"):
        result = run_task(task, make_context((lake, rows), rows=[r for r in rows if not r.lesion]))
        assert [row["reason"] for row in result.rows] == ["no held-out case has a lesion mask"]


@pytest.mark.parametrize("task", TASKS)
def test_a_region_without_held_out_cases_is_an_error_that_names_it(stored, task):
    rows = [row for row in stored[1] if row.split != "test"]
    with pytest.raises(UserError, match=r"region '(chest|abdomen)' has no 'test' case"):
        run_task(task, make_context(stored, rows=rows))


def test_a_region_that_the_data_does_not_have_is_left_out(stored):
    config = small_config().replace(regions=("head_neck", "abdomen"))
    rows = run_task("superresolution", make_context(stored, config)).rows
    assert {row["region"] for row in rows} == {"abdomen"}


def test_synthesis_is_told_the_map_and_measures_organs(stored):
    context = make_context(stored)
    rows = run_task("synthesis", context).rows
    assert LIVER in context.base.anatomy_seen
    assert value(rows, method="class-mean", metric="organ_hu_error", region="abdomen") < 15
    assert {r["method"] for r in rows if r["metric"].startswith("kid[")} == {"real", "class-mean", "ours"}
    for name in ("pixels", "random-conv3d-seed0"):
        near = {r["method"] for r in rows if r["metric"] == f"nearest_training[{name}]" and r["value"] > 0}
        assert near == {"real", "ours"}


def test_the_picture_of_a_drawn_volume_names_the_training_case_that_it_is_nearest_to(stored):
    pictures = run_task("synthesis", make_context(stored)).pictures
    trained = {f"nearest seen: case-{number}" for number in (0, 1)}
    assert pictures
    for picture in pictures:
        assert picture.panels[-1].caption in trained
        assert picture.panels[-1].image.shape == picture.panels[1].image.shape


class SeesByValue:
    """Finds a liver wherever HU are those of one, and a lesion wherever they are a little lower."""

    fingerprint = "f" * 32
    network = SimpleNamespace(labels=label_table(SegmenterConfig()))

    def __init__(self):
        self.window = WINDOWS["abdomen"]

    def segment(self, x_ZYX):
        hu = self.window.to_hu(x_ZYX)
        anatomy = np.select([hu > 65, hu > -200], [LIVER, BODY], 0).astype(np.uint8)
        return Segmentation(anatomy, (hu > 30) & (hu < 65))


def test_what_is_drawn_is_read_by_the_segmenter_beside_the_real_case(stored):
    config = small_config().replace(regions=("abdomen",))
    context = make_context(stored, config)
    context.segmenter = LakeSegmenter(SeesByValue())
    rows = run_task("synthesis", context).rows
    organs = {r["method"]: r["value"] for r in rows if r["metric"] == "dice_anatomy[segmenter ffffffff]"}
    assert organs["class-mean"] == 1
    assert organs["real"] > 0.9 > organs["ours"]
    for task in ("lesion-generation", "lesion-inpainting"):
        rows = run_task(task, context).rows
        seen = {r["method"]: r["value"] for r in rows if r["metric"] == "dice_lesion[segmenter ffffffff]"}
        assert seen["real"] > 0.2
        assert set(seen) == {"real", "constant-hu", "no-controlnet", "ours"}


def test_a_tool_that_is_not_there_is_a_row_with_the_remedy(stored, monkeypatch):
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR", "/nowhere/TotalSegmentator")
    config = small_config()
    config = config.replace(synthesis=config.synthesis.replace(totalsegmentator=Segmenter()))
    rows = run_task("synthesis", make_context(stored, config)).rows
    lost = [r for r in rows if r["metric"] == "dice_anatomy[totalsegmentator 2.18.0]"]
    assert lost
    assert all("no such command at /nowhere" in r["reason"] for r in lost)


def test_a_sweep_measured_twice_gives_the_same_numbers(stored):
    first, second = (run_task("lesion-inpainting", make_context(stored)).rows for _ in range(2))
    assert first == second


def test_presets_have_different_fingerprints_and_keys_follow_data_config_and_models():
    assert tiny().fingerprint != paper().fingerprint
    plain, fine = Checkpoint(base="b"), Checkpoint(base="b", controls={"lesion": "c"})
    keys = {
        evaluate_key("m", tiny(), [fine]),
        evaluate_key("n", tiny(), [fine]),
        evaluate_key("m", tiny().replace(seeds=(1,)), [fine]),
        evaluate_key("m", tiny(), [plain]),
        evaluate_key("m", tiny(), [Checkpoint(base="d", controls={"lesion": "c"})]),
        evaluate_key("m", tiny(), [plain, fine]),
    }
    assert len(keys) == 6
    assert evaluate_key("m", EvaluateConfig.model_validate(tiny().model_dump()), [plain]) in keys
    assert evaluate_key("m", tiny().replace(workers=2), [plain]) in keys
