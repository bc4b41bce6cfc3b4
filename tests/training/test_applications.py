"""One's own CT goes in, and comes back in its own grid with nothing changed that was not meant to be."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn
from training_worlds import SMALL, volume, write_ct

from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.geometry import Geometry
from preprocessing.orient import turn_towards
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS, RegionExtent
from training.applications.denoise import DenoiseConfig, denoise
from training.applications.detect import DetectConfig, detect
from training.applications.guards import require_seen
from training.applications.inpaint import InpaintConfig, inpaint
from training.applications.lesion_site import lesion_in_scan
from training.applications.mask import read_mask
from training.applications.region_field import RegionField
from training.applications.scan import (
    Change,
    apply_changes,
    fading,
    find_case,
    onto,
    open_scan,
    prepare,
    write_result,
)
from training.applications.superresolve import SuperresolveConfig, superresolve
from training.config import FinetuneConfig, PretrainConfig, TrainConfig
from training.diffusion import Schedule
from training.launch import finetune, pretrain
from training.models import open_model
from training.seen import what_was_seen


@pytest.fixture(scope="module")
def model(tiny_lake, recipe):
    """A model trained for a few steps on the tiny lake's patients, opened by its address."""

    from training.config import TrainConfig

    train = TrainConfig(
        iterations=6, batch_size=2, accumulate=1, learning_rate=1e-2, warmup=2, validation_samples=0, picture_every=0
    )
    run = pretrain(tiny_lake, recipe, PretrainConfig(preset="tiny", model=SMALL, train=train))
    return open_model(f"{tiny_lake.url}/{run.key}")


@pytest.fixture
def scan(tmp_path, model):
    path = write_ct(tmp_path / "ct.nii.gz")
    return prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / "scratch")))


def nothing(done, total):
    """No one listens."""


@pytest.mark.parametrize("estimate", ["mean", "restore", "sample"])
def test_denoising_changes_the_body_and_only_within_the_window(scan, model, estimate):
    heard = []
    config = DenoiseConfig(estimate=estimate, sigma_hu=90.0, steps=3)
    done = denoise(scan, model, config, lambda *at: heard.append(at))
    before, window = scan.volume.image, WINDOWS["chest"]
    changed = done.hu_zyx != before
    assert changed.mean() > 0.1
    assert ((before > window.low_hu) & (before < window.high_hu))[changed].all()
    assert heard == [(n, heard[-1][1]) for n in range(1, heard[-1][1] + 1)]
    assert done.sigma_hu == {"chest": pytest.approx(90)}


def test_the_noise_level_is_estimated_in_the_body(scan, model):
    """The tiny lake's bodies have noise of 20 HU."""
    assert denoise(scan, model, DenoiseConfig(), nothing).sigma_hu["chest"] == pytest.approx(20, rel=0.25)


def test_equal_seeds_give_equal_samples(scan, model):
    first, again, other = (
        denoise(scan, model, DenoiseConfig(estimate="sample", sigma_hu=90, steps=3, seed=s), nothing).hu_zyx
        for s in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()


def padded(hu):
    """Outside of the scanner's circle, as some scanners fill it."""
    return np.where((np.indices(hu.shape)[1:].sum(0) < 6), -2000, hu).astype(np.int16)


def without_intercept(hu):
    """The numbers of a scanner as HU; with fat, so that the mistake is certain."""
    return np.where((hu > -60) & (hu < 20), hu - 80, hu) + 1024


@pytest.mark.parametrize("stored", [padded, without_intercept])
def test_a_file_whose_values_were_mended_keeps_those_that_did_not_change(tmp_path, model, stored):
    path = write_ct(tmp_path / "ct.nii.gz", hu=stored(volume(3, lesion=False)[0]))
    with open_scan(path, model.recipe, "chest") as scan:
        assert (scan.as_read.image != scan.volume.image).any()
        hu = scan.volume.image.copy()
        hu[20:24, 8:12, 10:14] += 30
        assert write_result(scan, hu, tmp_path / "out.nii.gz", "a test") == ()
    before, after = (np.asarray(nib.load(tmp_path / name).dataobj).T for name in ("ct.nii.gz", "out.nii.gz"))
    difference = np.zeros(hu.shape)
    difference[20:24, 8:12, 10:14] = 30
    np.testing.assert_array_equal(after - before, difference)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LAI"])
def test_the_result_does_not_depend_on_the_order_of_the_files_axes(tmp_path, model, codes):
    results = []
    for name in ("LPS", codes):
        hu = volume(3, lesion=False)[0]
        flips = [axis for axis, (a, b) in enumerate(zip("LPS"[::-1], name[::-1], strict=True)) if a != b]
        path = write_ct(tmp_path / f"{name}.nii.gz", codes=name, hu=np.flip(hu, flips))
        one = prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / name)))
        results.append(
            np.flip(denoise(one, model, DenoiseConfig(sigma_hu=90), nothing).hu_zyx, flips if name == codes else ())
        )
    np.testing.assert_array_equal(*results)


def test_a_change_lands_where_it_was_made(scan):
    extent = RegionExtent(name="chest", z_start=5, z_stop=30)
    hu = np.zeros((25, *scan.stored.geometry(0).shape[1:]), np.float32)
    hu[10, 11, 12] = 100
    moved = apply_changes(scan, [Change(extent, hu)]).astype(int) - scan.volume.image
    (found,) = np.argwhere(moved)
    world = scan.stored.geometry(0).world((15, 11, 12))
    np.testing.assert_allclose(scan.volume.geometry.world(found), world, atol=0.01)
    assert moved[tuple(found)] == 100


def test_regions_that_overlap_fade_into_each_other():
    changes = [
        Change(RegionExtent(name=name, z_start=low, z_stop=high), np.zeros((high - low, 1, 1), np.float32))
        for name, low, high in (("abdomen", 0, 20), ("chest", 12, 40))
    ]
    total = np.zeros(40)
    for change, weight in zip(changes, fading(changes), strict=True):
        total[change.extent.z_start : change.extent.z_stop] += weight
    np.testing.assert_allclose(total, 1)
    assert np.all(np.diff(fading(changes)[1][:8]) > 0)


def test_moving_to_the_same_grid_changes_nothing(rng):
    geometry = Geometry((6, 7, 8), (2.0, 1.0, 1.5), (-3.0, 2.0, 1.0))
    array = rng.normal(size=geometry.shape).astype(np.float32)
    np.testing.assert_allclose(onto(array, geometry, geometry), array, atol=1e-5)


def test_what_lies_outside_of_the_body_is_not_asked_about(scan, model):
    """A field twice as wide, half of it air without any body, takes no more evaluations than the body does."""
    field = RegionField.of(scan.stored, scan.regions[0], model.config.patch)
    scene = field.scene()
    assert (scene.anatomy_ZYX == 119).all()
    np.testing.assert_array_equal(scene.outside_ZYX.numpy(), field.normalised())
    assert scene.body_ZYX.any()
    assert not scene.body_ZYX.all()


def test_what_the_training_cases_were_like_is_in_the_seal(tiny_lake, recipe, model):
    seen = model.seal.seen
    assert set(seen) == {"chest", "abdomen"}
    assert seen["chest"].smallest_mm == seen["chest"].largest_mm == (88.0, 88.0, 100.0)
    assert seen["chest"].thickest_slices_mm == 4.0
    assert Recipe.model_validate(model.seal.recipe) == recipe
    assert what_was_seen([], None) == {}


def test_a_region_that_the_model_never_saw_is_refused(tmp_path, model):
    path = write_ct(tmp_path / "ct.nii.gz")
    scan = prepare(find_case(path, "head_neck"), model.recipe, open_lake(str(tmp_path / "s")))
    with pytest.raises(UserError, match=r"shows the head_neck, which this model has never seen \(it knows chest, abd"):
        require_seen(scan, model)


def test_a_field_of_view_that_is_far_smaller_is_refused(tmp_path, model):
    path = write_ct(tmp_path / "ct.nii.gz", spacing=(0.8, 4.0, 4.0))
    scan = prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / "s")))
    with pytest.raises(UserError, match="less than half of the smallest field of view"):
        require_seen(scan, model)


def test_thick_slices_and_another_field_of_view_are_told(tmp_path, model):
    path = write_ct(tmp_path / "ct.nii.gz", spacing=(7.0, 4.0, 4.0))
    scan = prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / "s")))
    told = require_seen(scan, model)
    assert any("is outside of what the model has seen" in warning for warning in told)
    assert any("slices 7 mm apart are thicker than any" in warning for warning in told)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: folder / "none.nii.gz", "is not there"),
        (lambda folder: folder, "no CT|holds"),
        (lambda folder: write_ct(folder / "ct.nii.gz").rename(folder / "ct.txt"), "is no NIfTI, NRRD or MetaImage"),
    ],
)
def test_a_path_without_a_ct_is_a_sentence(tmp_path, make, match):
    with pytest.raises(UserError, match=match):
        find_case(make(tmp_path))


def test_a_ct_that_cannot_be_used_is_a_sentence(tmp_path, model):
    mr = write_ct(tmp_path / "mr.nii.gz", hu=np.clip(volume(3)[0] + 1100, 0, None))
    with pytest.raises(UserError, match=r"mr\.nii\.gz: .*no Hounsfield units"):
        prepare(find_case(mr, "chest"), model.recipe, open_lake(str(tmp_path / "a")))
    unknown = write_ct(tmp_path / "ct.nii.gz")
    with pytest.raises(UserError, match=r"which region it shows is not known .* say it with --region"):
        prepare(find_case(unknown), model.recipe, open_lake(str(tmp_path / "b")))


def test_a_clean_image_is_refused(tmp_path, model):
    hu = volume(3, lesion=False)[0]
    bright = 40 + np.arange(len(hu))[:, None, None]
    clean = np.where(hu > 20, bright, np.where(hu > -500, -20, hu)).astype(np.int16)
    clean = clean[:40:2, :, :24:2].repeat(2, 0).repeat(2, 2)
    path = write_ct(tmp_path / "ct.nii.gz", hu=clean)
    scan = prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / "s")))
    with pytest.raises(UserError, match="is nothing to be removed; give the standard deviation in HU with --sigma"):
        denoise(scan, model, DenoiseConfig(), nothing)


@pytest.fixture(scope="module")
def lesion_model(tiny_lake, recipe, model):
    """A ControlNet for lesions on the same model, trained for a few steps."""
    train = TrainConfig(
        iterations=4, batch_size=2, accumulate=1, learning_rate=1e-2, warmup=2, validation_samples=0, picture_every=0
    )
    base = model.url.removeprefix(f"{tiny_lake.url}/")
    run = finetune(tiny_lake, recipe, FinetuneConfig(preset="tiny", task="lesion", train=train), base)
    return open_model(f"{tiny_lake.url}/{run.key}", task="lesion")


def mask_at(scan, centre, radius):
    """A ball of a radius in voxels on the scan's own grid."""
    distance = np.linalg.norm(np.indices(scan.volume.image.shape) - np.reshape(centre, (3, 1, 1, 1)), axis=0)
    return distance <= radius


def write_mask(path, mask, like):
    """A mask as a NIfTI file with the affine of another file."""
    nib.save(nib.Nifti1Image(mask.astype(np.uint8).transpose(2, 1, 0), nib.load(like).affine), path)
    return path


def test_a_lesion_is_drawn_in_the_mask_and_a_margin_and_nowhere_else(scan, lesion_model):
    mask, heard = mask_at(scan, (25, 11, 12), 2), []
    config = InpaintConfig(steps=4, jump_length=2, jump_repeats=2, dilation_voxels=2, margin_voxels=2)
    done = inpaint(scan, mask, lesion_model, config, lambda *at: heard.append(at))
    changed = done.hu_zyx != scan.volume.image
    assert changed[mask].any()
    assert not changed[~done.zone_zyx].any()
    assert done.zone_zyx[mask].all()
    assert not done.zone_zyx[~mask_at(scan, (25, 11, 12), 5)].any()
    assert heard[-1][0] == heard[-1][1]


def test_another_seed_draws_another_lesion(scan, lesion_model):
    mask = mask_at(scan, (25, 11, 12), 2)
    one, same, other = (
        inpaint(scan, mask, lesion_model, InpaintConfig(steps=3, seed=seed), nothing).hu_zyx for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()


@pytest.fixture
def labelled_scan(tmp_path, model):
    """A CT in a folder with a mask of its liver beside it, chest and abdomen unknown to be one of them."""
    folder = tmp_path / "labelled"
    (folder / "segmentations").mkdir(parents=True)
    path = write_ct(folder / "ct.nii.gz")
    write_mask(folder / "segmentations" / "liver.nii.gz", volume(3)[1] == 5, path)
    return prepare(find_case(folder, "abdomen"), model.recipe, open_lake(str(tmp_path / "scratch-labelled")))


def test_the_place_of_a_lesion_is_found_in_an_organ_that_the_labels_name(labelled_scan):
    scan, liver = labelled_scan, volume(3)[1] == 5
    balls = [lesion_in_scan(scan, "liver", 8.0, seed) for seed in (0, 0, 1)]
    for ball in balls:
        assert not ball[~liver].any()
        assert ball.sum() * 4.0**3 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.3)
    assert (balls[0] == balls[1]).all()
    assert (balls[0] != balls[2]).any()


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ("lung", "lung lies in the chest, which labelled does not show"),
        ("spleen", "the map shows no spleen"),
        ("lever", "'lever' is no class of the anatomy"),
    ],
)
def test_an_organ_that_is_not_there_is_a_sentence(labelled_scan, site, sentence):
    with pytest.raises(UserError, match=sentence):
        lesion_in_scan(labelled_scan, site, 8.0, 0)


def test_without_labels_no_organ_is_found(scan):
    with pytest.raises(UserError, match=r"ct.nii.gz has no anatomy labels to find the liver by.*--mask"):
        lesion_in_scan(scan, "liver", 8.0, 0)


def test_an_anomaly_map_is_zero_outside_of_the_organ(scan, model):
    organ, heard = mask_at(scan, (25, 11, 12), 6), []
    config = DetectConfig(noise_t=500, steps=3, repeats=2, margin_voxels=2)
    found = detect(scan, organ, model, config, lambda *at: heard.append(at))
    assert found.map_zyx.shape == scan.volume.image.shape
    assert not found.map_zyx[~organ].any()
    assert (found.map_zyx[organ] >= 0).all()
    assert found.score_hu >= np.median(found.map_zyx[organ])
    assert heard[-1][0] == heard[-1][1]


class KnowsTheOrgan(nn.Module):
    """Draws everything as the made-up organ, 60 HU in the chest window."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(WINDOWS["chest"].normalise(np.float32(60))), requires_grad=False)

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        return Schedule().predict_eps(x_B1ZYX, self.value.expand(x_B1ZYX.shape), t_B)


def test_a_model_that_knows_the_healthy_organ_finds_what_is_not(tmp_path, model):
    hu = volume(3, lesion=False)[0]
    hu[24:27, 10:13, 11:14] += 250
    scan = prepare(find_case(write_ct(tmp_path / "ct.nii.gz", hu=hu), "chest"), model.recipe, open_lake(str(tmp_path)))
    config = DetectConfig(noise_t=300, steps=3, repeats=1, margin_voxels=2, smooth_voxels=0.0)
    found = detect(scan, mask_at(scan, (25, 11, 12), 4), replace(model, network=KnowsTheOrgan()), config, nothing)
    np.testing.assert_allclose(found.map_zyx[25, 11, 12], abs(hu[25, 11, 12] - 60), atol=1)
    assert (found.map_zyx > 150).sum() == 27
    assert found.score_hu > 200


@pytest.fixture(scope="module")
def thin_model(tiny_lake, recipe, model):
    """A ControlNet that draws two slices for one, trained for a few steps."""
    train = TrainConfig(
        iterations=4, batch_size=2, accumulate=1, learning_rate=1e-2, warmup=2, validation_samples=0, picture_every=0
    )
    base = model.url.removeprefix(f"{tiny_lake.url}/")
    config = FinetuneConfig(preset="tiny", task="superresolution", factor=2, train=train)
    return open_model(f"{tiny_lake.url}/{finetune(tiny_lake, recipe, config, base).key}", task="superresolution")


class KeepsTheControl(nn.Module):
    """Draws what it is given: the interpolated slices."""

    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        assert (conditions.anatomy_BZYX == 119).all()
        return Schedule().predict_eps(x_B1ZYX, control, t_B)


def thick_scan(tmp_path, model, spacing=(8.0, 4.0, 4.0), **ct):
    path = write_ct(tmp_path / "thick.nii.gz", spacing=spacing, **ct)
    return prepare(find_case(path, "chest"), model.recipe, open_lake(str(tmp_path / "scratch")))


@pytest.mark.parametrize("codes", ["LPS", "RAI"])
def test_thin_slices_have_the_means_of_the_thick_ones_and_lie_between_them(tmp_path, thin_model, codes):
    scan, heard = thick_scan(tmp_path, thin_model, codes=codes), []
    known = replace(thin_model, network=KeepsTheControl())
    config = SuperresolveConfig(steps=4, sigma_n=1e-4)  # trusts the slices, to the end
    done = superresolve(scan, known, config, lambda *at: heard.append(at))
    depth, height, width = scan.volume.image.shape
    assert done.hu_zyx.shape == (2 * depth, height, width)
    assert done.geometry.spacing_mm == (4.0, 4.0, 4.0)
    turn = turn_towards(scan.volume.geometry)
    source, own = turn.array(scan.volume.image), turn.geometry(scan.volume.geometry)
    middles = done.geometry.world([(0.5, 0, 0), (2 * depth - 1.5, height - 1, width - 1)])
    np.testing.assert_allclose(middles, own.world([(0, 0, 0), (depth - 1, height - 1, width - 1)]), atol=1e-6)
    means = done.hu_zyx.reshape(depth, 2, height, width).mean(1)
    inside = np.abs(WINDOWS["chest"].normalise(source)) < 0.95
    np.testing.assert_allclose(means[2:-2][inside[2:-2]], source[2:-2][inside[2:-2]], atol=2)
    assert heard[-1][0] == heard[-1][1]


def test_a_trained_network_adds_something_of_its_own(tmp_path, thin_model):
    scan = thick_scan(tmp_path, thin_model)
    one, same, other = (
        superresolve(scan, thin_model, SuperresolveConfig(steps=2, seed=seed), nothing).hu_zyx for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_the_factor_is_free_and_by_default_leads_to_the_models_spacing(tmp_path, thin_model):
    scan = thick_scan(tmp_path, thin_model, spacing=(12.0, 4.0, 4.0))
    known = replace(thin_model, network=KeepsTheControl())
    done = superresolve(scan, known, SuperresolveConfig(steps=2), nothing)
    assert (done.factor, done.geometry.spacing_mm) == (3, (4.0, 4.0, 4.0))
    assert len(done.hu_zyx) == 3 * len(scan.volume.image)


@pytest.mark.parametrize(
    ("mm", "factor", "made"), [(3.0, None, r"3 mm in 2 make 1\.5"), (16.0, 2, "16 mm in 2 make 8")]
)
def test_slices_that_the_model_was_not_made_for_are_refused(tmp_path, thin_model, mm, factor, made):
    scan = thick_scan(tmp_path, thin_model, spacing=(mm, 4.0, 4.0))
    with pytest.raises(UserError, match=f"slices of {made} mm, .* it takes slices of 8 mm and more"):
        superresolve(scan, thin_model, SuperresolveConfig(steps=1, factor=factor), nothing)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda mask: np.zeros_like(mask), "is empty: it marks no voxel"),
        (lambda mask: mask[1:], "does not fit ct.nii.gz: "),
        (lambda mask: np.roll(mask, (9, 10), (1, 2)), "lies outside of the body"),
    ],
)
def test_a_mask_that_does_not_fit_is_a_sentence(tmp_path, scan, change, match):
    path = write_mask(tmp_path / "mask.nii.gz", change(mask_at(scan, (25, 11, 12), 2)), tmp_path / "ct.nii.gz")
    with pytest.raises(UserError, match=match):
        read_mask(scan, path)


def test_a_mask_is_read_on_the_grid_of_its_scan(tmp_path, scan):
    mask = mask_at(scan, (25, 8, 12), 3)
    np.testing.assert_array_equal(
        read_mask(scan, write_mask(tmp_path / "mask.nii.gz", mask, tmp_path / "ct.nii.gz")), mask
    )
    with pytest.raises(UserError, match=r"none\.nii is not there"):
        read_mask(scan, tmp_path / "none.nii")


class TestNames:
    """A model by the names that people use."""

    def test_a_key_is_looked_up_in_the_default_lake(self, tiny_lake, model):
        settings = Settings(lake=tiny_lake.url)
        key = model.url.removeprefix(f"{tiny_lake.url}/")
        again = open_model(key, settings=settings)
        for one, other in zip(model.network.parameters(), again.network.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_the_registered_champion_is_the_default_and_else_the_newest(self, tmp_path, tiny_lake, model):
        from infra.tracking import promote, tracked_run

        settings = Settings(home=tmp_path, tracking_uri="", lake=tiny_lake.url)
        with pytest.raises(UserError, match=r"no model meddiff-fm is registered .* `meddiff run"):
            open_model(settings=settings)
        with tracked_run("pretrain", "one", settings=settings) as run:
            run.log_model(model.url, alias="newest")
        assert open_model(settings=settings).url == model.url
        assert open_model("models:/meddiff-fm/1", settings=settings).url == model.url
        with pytest.raises(UserError, match="has no models:/meddiff-fm@champion"):
            open_model("models:/meddiff-fm@champion", settings=settings)
        promote(model.url.rpartition("/")[2], reason="test", settings=settings)
        assert open_model("models:/meddiff-fm@champion", settings=settings).url == model.url

    def test_another_kind_of_model_is_refused(self, tiny_lake, model):
        with pytest.raises(UserError, match="is a pre-trained model; this needs a model fine-tuned for lesion"):
            open_model(model.url, task="lesion")

    def test_what_is_no_model_is_refused(self, tiny_lake):
        with pytest.raises(UserError, match="is no model: give models:/NAME@ALIAS"):
            open_model("champion", settings=Settings(lake=tiny_lake.url))
        with pytest.raises(UserError, match="is no finished run"):
            open_model("runs/pretrain/0123", settings=Settings(lake=tiny_lake.url))
