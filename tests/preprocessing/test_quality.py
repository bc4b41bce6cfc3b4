import numpy as np
import pytest
from ct_samples import ball_hu

from preprocessing.case import CaseError
from preprocessing.decode import decode_image
from preprocessing.geometry import Geometry
from preprocessing.quality import audit
from preprocessing.volume import Volume


def volume(image) -> Volume:
    image = np.asarray(image).astype(np.int16)
    return Volume(image, Geometry(image.shape, (2.0, 1.0, 1.0)))


def test_a_ct_in_hu_passes_unchanged_and_without_findings():
    audited = audit(volume(np.maximum(ball_hu(), -1024)))
    assert np.array_equal(audited.image, np.maximum(ball_hu(), -1024))
    assert audited.findings == ()


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -8192])
def test_padding_becomes_air_with_a_finding(padding):
    image = np.maximum(ball_hu(), -1024)
    image[:, :3] = padding
    audited = audit(volume(image))
    assert (audited.image[:, :3] == -1024).all()
    assert np.array_equal(audited.image[:, 3:], image[:, 3:])
    assert f"{image[:, :3].size} voxels below -1024 HU (lowest {padding}) became -1024" in audited.findings


def test_an_image_stored_1024_too_high_is_mended():
    image = np.maximum(ball_hu(), -1024)
    audited = audit(volume(image + 1024))
    assert np.array_equal(audited.image, image)
    assert "1024 subtracted" in audited.findings[0]


def test_an_offset_of_1000_is_not_taken_for_1024():
    with pytest.raises(CaseError, match="nothing is negative"):
        audit(volume(np.maximum(ball_hu() + 1000, 0)))


def magnetic_resonance():
    tissue = np.where(ball_hu() > -500, 500 + 200 * np.sin(np.arange(32) / 4), 0)
    return np.abs(tissue + np.random.default_rng(0).normal(0, 15, tissue.shape))


REFUSED = {
    "a constant": (np.zeros((16, 16, 16)), "constant"),
    "a label map": (np.arange(16**3).reshape(16, 16, 16) % 118, "118 whole numbers from 0 to 117: a label map"),
    "an 8-bit picture": (np.clip((ball_hu() + 160) * 255 / 400, 0, 255), "8-bit"),
    "an MR": (magnetic_resonance(), "nothing is negative"),
    "an MR with a large scale": (magnetic_resonance() * 4, "nothing is negative"),
    "a normalised image": (np.clip(ball_hu() / 1000.0, -1, 1), "too narrow"),
    "a window of 400 HU": (np.clip(ball_hu(), -160, 240), "clipped to a window"),
    "an offset applied twice": (ball_hu() - 1024, "0.0% of the voxels lie between -200 and 250 HU"),
    "air only": (ball_hu() * 0 - 1000 + np.arange(32), "too narrow"),
    "a slice": (ball_hu()[:1], "2-D: 1 x 28 x 32"),
    "three slices": (ball_hu()[:3], "too thin to be a volume: 3 x 28 x 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_certainly_no_ct_volume_is_refused_with_what_was_measured(name):
    image, message = REFUSED[name]
    with pytest.raises(CaseError, match=message.replace("(", r"\(")):
        audit(volume(image))


@pytest.mark.parametrize(
    "name", ["spine-crop/sub-ct_label-22_ct.nii.gz", "head-neck/pt_305_ct.nii.gz", "head-4mm/ct.nii.gz"]
)
def test_real_crops_and_masked_fields_of_view_pass(real_data, name):
    image = decode_image([str(real_data / name)])
    audited = audit(Volume(image.array, image.geometry))
    assert audited.image.min() >= -1024
    assert np.array_equal(audited.image, np.maximum(image.array, -1024))


@pytest.mark.parametrize("name", ["abdomen-3mm-crop/ct.nii.gz", "lung-lesion/ct.nrrd", "head-4mm/ct.nii.gz"])
def test_real_cts_stored_1024_too_high_are_mended(real_data, name):
    image = decode_image([str(real_data / name)])
    hu = np.maximum(image.array, -1024)
    assert np.array_equal(audit(Volume(hu + np.int16(1024), image.geometry)).image, hu)


@pytest.mark.parametrize("name", ["chest-4mm/lm-64.nrrd", "chest-4mm/wholeLung-64.nrrd", "abdomen-3mm/anatomy.nii.gz"])
def test_real_label_maps_are_no_images(real_data, name):
    image = decode_image([str(real_data / name)])
    with pytest.raises(CaseError, match="a label map"):
        audit(Volume(image.array, image.geometry))
