"""The HU audit: what is CT in HU stays as it is, what is certainly another unit is mended, the rest is refused."""

import numpy as np
import pytest
from ct_samples import ball_hu
from scipy.ndimage import zoom

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image
from preprocessing.geometry import Geometry
from preprocessing.hu_audit import HuAudit
from preprocessing.quality import audit, check_companion, in_hu
from preprocessing.quality.rescale import corrections
from preprocessing.sources.phantom import PhantomSource
from preprocessing.volume import Volume


def body_hu() -> np.ndarray:
    """The ball in a coat of fat, its air cut off at the scanner's floor."""
    z, y, x = np.ogrid[-1:1:24j, -1:1:28j, -1:1:32j]
    radius = np.sqrt(z**2 + (y * 1.2) ** 2 + (x * 1.1 + 0.1) ** 2)
    coat = (radius > 0.7) & (radius < 0.95)
    fat = np.random.default_rng(3).normal(-100, 10, coat.shape).round()
    ball = ball_hu() + np.where(ball_hu() > -500, 15, 0)
    return np.maximum(np.where(coat, fat, ball), -1024).astype(np.int16)


def volume(image) -> Volume:
    image = np.clip(np.rint(image), -32768, 32767).astype(np.int16)
    return Volume(image, Geometry(image.shape, (2.0, 1.0, 1.0)))


@pytest.mark.parametrize("image", [body_hu(), np.maximum(ball_hu(), -1024)], ids=["with fat", "without fat"])
def test_a_ct_in_hu_passes_unchanged_and_without_findings(image):
    audited = audit(volume(image))
    assert np.array_equal(audited.image, image)
    assert audited.findings == ()


def test_what_was_measured_is_recorded_in_numbers():
    image = body_hu()
    image[:, :3] = -2000
    found = audit(volume(image)).audit
    assert isinstance(found, HuAudit)
    assert abs(found.air_peak_hu + 1000) < 10
    assert abs(found.fat_peak_hu + 100) < 10
    assert abs(found.soft_tissue_peak_hu - 45) < 20
    assert (found.low, found.high) == (-2000, image.max())
    assert found.padding_value == -2000
    assert found.padded_share == pytest.approx(3 / 28, abs=1e-5)
    assert (found.scale, found.offset) == (1, 0)
    assert HuAudit.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -8192, -32768, -1500, -1777])
def test_padding_becomes_air_with_a_finding(padding):
    image = body_hu()
    image[:, :3] = padding
    audited = audit(volume(image))
    assert (audited.image[:, :3] == -1024).all()
    assert np.array_equal(audited.image[:, 3:], image[:, 3:])
    assert audited.audit.padding_value == padding
    assert f"{image[:, :3].size} voxels below -1024 HU (lowest {padding}) became -1024" in audited.findings


def test_ringing_below_air_is_no_padding():
    image = body_hu()
    image[3, 3, 3:9] = [-1030, -1100, -1207, -1050, -1026, -1090]
    audited = audit(volume(image))
    assert audited.audit.padding_value is None
    assert audited.image.min() == -1024
    assert audited.findings == ("6 voxels below -1024 HU (lowest -1207) became -1024",)


def test_padding_and_its_edge_after_linear_resampling_are_no_scaled_air():
    image = np.pad(body_hu(), ((0, 0), (6, 0), (0, 0)), constant_values=-2048)
    audited = audit(volume(zoom(image.astype(float), (1, 1.37, 1), order=1)))
    assert audited.audit.padding_value == -2048
    assert (audited.audit.scale, audited.audit.offset) == (1, 0)


# other units


@pytest.mark.parametrize("scale_offset", corrections())
def test_a_body_under_every_known_mistake_is_mended_to_within_one_hu(scale_offset):
    scale, offset = scale_offset
    stored = (body_hu() - offset) / scale
    if np.abs(stored).max() > 32767:
        pytest.skip("int16 cannot hold it")
    audited = audit(volume(stored))
    assert np.abs(audited.image.astype(int) - body_hu()).max() <= 1
    assert (audited.audit.scale, audited.audit.offset) == scale_offset
    assert f"{scale:g} x stored {offset:+g} was taken" in audited.findings[0]


def test_an_offset_that_nobody_makes_is_refused_with_the_peaks_and_what_was_expected():
    with pytest.raises(CaseError, match=r"peaks at .*"):
        audit(volume(body_hu() + 555))


def test_one_that_fits_two_mistakes_alike_is_refused():
    """12 HU too high after 1000 is 12 HU too low after 1024."""
    with pytest.raises(CaseError, match=r"hardly any are negative.*peaks at 1\d,"):
        audit(volume(body_hu() + 1012))


def test_a_companion_gets_its_images_correction():
    image = body_hu()
    audited = audit(volume(image + 1024))
    companion = in_hu((image + 1030).astype(np.int16), audited.audit)
    assert np.array_equal(companion, image + 6)
    check_companion("low_dose", companion, audited.image)


def test_a_companion_in_other_units_than_its_image_is_refused():
    image = body_hu()
    with pytest.raises(CaseError, match="companion low_dose differs from its image by 1024 HU"):
        check_companion("low_dose", (image + 1024).astype(np.int16), image)


def magnetic_resonance():
    tissue = np.where(ball_hu() > -500, 500 + 200 * np.sin(np.arange(32) / 4), 0)
    return np.abs(tissue + np.random.default_rng(0).normal(0, 15, tissue.shape))


REFUSED = {
    "a constant": (np.zeros((16, 16, 16)), "constant"),
    "a label map": (np.arange(16**3).reshape(16, 16, 16) % 118, "118 whole numbers from 0 to 117: a label map"),
    "a mask of two values": (np.where(ball_hu() > 0, 255, 0), "2 whole numbers from 0 to 255: a label map"),
    "an 8-bit picture": (np.clip((ball_hu() + 160) * 255 / 400, 0, 255), "8-bit"),
    "an MR": (magnetic_resonance(), "nothing is negative"),
    "an MR with a large scale": (magnetic_resonance() * 4, "nothing is negative"),
    "an MR stored from -1024": (magnetic_resonance() - 1024, "wrong slope or intercept"),
    "a normalised image": (np.clip(ball_hu() / 1000.0, -1, 1), "too narrow"),
    "a window of 400 HU": (np.clip(ball_hu(), -160, 240), "clipped to a window"),
    "bone cut at 255": (np.clip(body_hu(), -1024, 255), "exactly 255: bone is clipped"),
    "an offset applied twice, without fat": (ball_hu() - 1024, "lie below -1100 HU"),
    "a slope of 1.7": (body_hu() * 1.7, "lie below -1100 HU"),
    "a slope of 0.6": (body_hu() * 0.6, "no tissue has its peak; peaks at -6"),
    "air only": (ball_hu() * 0 - 1000 + np.arange(32), "too narrow"),
    "a slice": (ball_hu()[:1], "2-D: 1 x 28 x 32"),
    "three slices": (ball_hu()[:3], "too thin to be a volume: 3 x 28 x 32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_certainly_no_ct_volume_is_refused_with_what_was_measured(name):
    image, message = REFUSED[name]
    with pytest.raises(CaseError, match=message.replace("(", r"\(")):
        audit(volume(image))


@pytest.mark.parametrize("ceiling", [1024, 1500])
def test_metal_cut_off_is_said_and_kept(ceiling):
    image = body_hu()
    image[10:14, 12:16, 14:20] = 3000
    audited = audit(volume(np.minimum(image, ceiling)))
    assert audited.audit.clipped_high
    assert audited.findings == (f"values pile up at {ceiling} HU: its source clipped them there",)


# real scans

REAL = {  # and the padding value
    "chest-full/ct.nii.gz": -2048,
    "abdomen-3mm/ct.nii.gz": None,
    "lung-lesion/ct.nrrd": None,
    "abdomen-dicom": None,  # its decoder has made it air
    "head-4mm/ct.nii.gz": None,
    "head-neck/pt_12_ct.nii.gz": None,
    "head-neck/pt_206_ct.nii.gz": None,
    "sarcoma/STS_001/CT_image.nii.gz": None,
    "sarcoma/STS_003/CT_image.nii.gz": None,
    "sarcoma/STS_022/CT_image.nii.gz": None,
    "lung-two-visits/3DCT_lung_baseline.mha": -2048,
    "lung-two-visits/3DCT_lung_followup.mha": -2048,
}
INTERCEPTS = {1.0: (-1000.0, -1024.0, -8192.0), 2.0: (0.0, -1000.0, -1024.0), 0.5: (0.0, -1024.0), 1.5: (0.0,)}
MISTAKES = {
    f"{how} with slope {slope:g} and intercept {intercept:g}": (slope, intercept, how)
    for slope, intercepts in INTERCEPTS.items()
    for intercept in intercepts
    for how in ("never rescaled", "rescaled twice")
}
PLACED = {
    "clipped at 255": lambda hu: np.minimum(hu, 255),
    "clipped to the abdomen's window": lambda hu: np.clip(hu, -120, 240),
    "clipped to the chest's window": lambda hu: np.clip(hu, -1400, 400),
    "shown in 8 bits": lambda hu: np.clip((hu + 160) * 255 / 400, 0, 255),
    "stored from 0, padding at 0": lambda hu: np.maximum(hu, -1024) + 1024,
    "stored from 0 in steps of 1000, padding at 0": lambda hu: np.maximum(hu, -1000) + 1000,
}


@pytest.fixture(scope="module")
def scans(real_data, tmp_path_factory) -> dict[str, np.ndarray]:
    """HU of the real scans, thinned to some 300 thousand voxels, which a histogram does not mind."""
    found = {}
    for name in REAL:
        path = real_data / name
        files = sorted(map(str, path.iterdir())) if path.is_dir() else [str(path)]
        image = decode_image(files).array
        step = max(1, round((image.size / 3e5) ** 0.5))
        found[name] = np.ascontiguousarray(image[:, ::step, ::step]).astype(np.int32)
    return found


def mistaken(hu: np.ndarray, slope: float, intercept: float, how: str) -> np.ndarray:
    stored = (hu - intercept) / slope if how == "never rescaled" else hu * slope + intercept
    return np.clip(np.rint(stored), -32768, 32767)


@pytest.mark.parametrize("name", REAL)
def test_a_real_scan_is_changed_by_nothing_but_padding(scans, name):
    hu = scans[name]
    audited = audit(volume(hu))
    assert np.array_equal(audited.image, np.maximum(hu, -1024))
    assert (audited.audit.scale, audited.audit.offset) == (1, 0)
    assert -1060 <= audited.audit.air_peak_hu <= -900
    assert 0 <= audited.audit.soft_tissue_peak_hu <= 100
    assert audited.audit.padding_value == REAL[name]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_real_scan_under_a_rescale_mistake_is_mended_or_refused_and_never_passed_on(scans, mistake):
    mended, reasons = 0, []
    for name, hu in scans.items():
        stored = mistaken(hu, *MISTAKES[mistake])
        try:
            audited = audit(volume(stored))
        except CaseError as error:
            reasons.append(str(error))
            continue
        kept = np.abs(stored) < 32767
        assert np.abs(audited.image - np.maximum(hu, -1024))[kept].max() <= 1, name
        assert (audited.audit.scale, audited.audit.offset) != (1, 0)
        mended += 1
    assert not [reason for reason in reasons if not any(word in reason for word in ("HU", "Hounsfield"))]
    print(f"{mistake}: {mended} of {len(scans)} mended")
    if MISTAKES[mistake][:2] in ((1, -1000), (1, -1024), (1, -8192)):
        assert mended >= len(scans) // 3


@pytest.mark.parametrize("change", PLACED)
def test_a_real_scan_that_lost_values_is_mended_or_refused(scans, change):
    for name, hu in scans.items():
        try:
            audited = audit(volume(PLACED[change](hu)))
        except CaseError:
            continue
        assert "stored from 0" in change, name
        assert np.abs(audited.image - np.maximum(hu, -1024)).max() <= (1 if "1000" not in change else 24), name


def test_the_phantoms_pass_unchanged_and_are_mended_when_stored_too_high(tmp_path):
    from infra.lake import open_lake

    source, lake = PhantomSource(patients=3, resolution="tiny"), open_lake(str(tmp_path))
    for case in source.cases():
        image = decode_image(source.fetch(case, lake, tmp_path).image)
        audited = audit(Volume(image.array, image.geometry))
        assert np.array_equal(audited.image, np.maximum(image.array, -1024))
        assert (audited.audit.scale, audited.audit.offset) == (1, 0)
        for mistake in MISTAKES.values():
            stored = mistaken(image.array.astype(np.int32), *mistake)
            try:
                mended = audit(volume(stored))
            except CaseError:
                continue
            assert np.abs(mended.image - np.maximum(image.array, -1024))[np.abs(stored) < 32767].max() <= 1


@pytest.mark.parametrize("name", ["spine-crop/sub-ct_label-22_ct.nii.gz", "head-neck/pt_305_ct.nii.gz"])
def test_real_crops_and_masked_fields_of_view_pass(real_data, name):
    image = decode_image([str(real_data / name)])
    audited = audit(Volume(image.array, image.geometry))
    assert np.array_equal(audited.image, np.maximum(image.array, -1024))
    assert any("no air" in finding for finding in audited.findings) == name.startswith("spine")


@pytest.mark.parametrize("name", ["chest-4mm/lm-64.nrrd", "chest-4mm/wholeLung-64.nrrd", "abdomen-3mm/anatomy.nii.gz"])
def test_real_label_maps_are_no_images(real_data, name):
    image = decode_image([str(real_data / name)])
    with pytest.raises(CaseError, match="a label map"):
        audit(Volume(image.array, image.geometry))
