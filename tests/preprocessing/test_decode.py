import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_samples import ball_hu, ras_affine, rotation, write_nifti
from whole_case import read_volume

from preprocessing.case import LESION, Case, CaseError, LabelFile
from preprocessing.decoding.decode import decode_image, decode_labels
from preprocessing.geometry import Geometry

HU = ball_hu((10, 12, 14))
GEOMETRY = Geometry(HU.shape, (2.5, 1.5, 1.25), (-40.0, 15.0, 7.5))


def direction(matrix):
    return tuple(tuple(float(v) for v in row) for row in matrix)


def case(**fields) -> Case:
    return Case(**{"source": "folder", "id": "a", "patient": "a", **fields})


def assert_same_place(one: Geometry, other: Geometry):
    assert one.shape == other.shape
    assert np.allclose(one.corners(), other.corners(), atol=1e-3)


# NIfTI


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1), (2, 0), (4, 3)])
@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.diag([-1, 1, -1]), np.eye(3)[[2, 0, 1]] * [1, -1, 1], rotation((0.1, 0.2, -0.1))]
)
def test_a_nifti_lies_where_its_affine_says(tmp_path, codes, matrix):
    geometry = Geometry(HU.shape, (2.5, 1.5, 1.25), (-40.0, 15.0, 7.5), direction(matrix))
    path = write_nifti(tmp_path / "ct.nii.gz", HU, ras_affine(geometry), sform=codes[0], qform=codes[1])
    image = decode_image([str(path)])
    assert np.array_equal(image.array, HU)
    assert_same_place(image.geometry, geometry)
    assert image.findings == ()


def test_a_nifti_agrees_with_itk_on_where_a_voxel_lies(tmp_path):
    geometry = Geometry(HU.shape, (2.5, 1.5, 1.25), (-40.0, 15.0, 7.5), direction(rotation((0.3, 0.1, -0.2))))
    path = write_nifti(tmp_path / "ct.nii.gz", HU, ras_affine(geometry), sform=1, qform=1)
    by_itk = sitk.ReadImage(str(path)).TransformIndexToPhysicalPoint((3, 5, 7))
    assert np.allclose(decode_image([str(path)]).geometry.world((7, 5, 3)), by_itk[::-1], atol=1e-3)


@pytest.mark.parametrize("codes", [(0, 0)])
def test_a_nifti_that_does_not_say_where_left_is_is_refused(tmp_path, codes):
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY), sform=codes[0], qform=codes[1])
    with pytest.raises(CaseError, match=r"ct\.nii does not say how it is oriented"):
        decode_image([str(path)])


def test_of_two_affines_the_sform_is_taken_and_said(tmp_path):
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY), sform=1, qform=1)
    image = nib.load(path)
    shifted = image.affine.copy()
    shifted[0, 3] += 30
    image.set_qform(shifted, 1)
    nib.save(image, tmp_path / "two.nii")
    decoded = decode_image([str(tmp_path / "two.nii")])
    assert_same_place(decoded.geometry, GEOMETRY)
    assert decoded.findings == ("sform and qform lie up to 30.0 mm apart; sform taken",)


def test_two_affines_that_disagree_on_left_are_refused(tmp_path):
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY), sform=1, qform=1)
    image = nib.load(path)
    image.set_qform(np.diag([-1, 1, 1, 1]) @ image.affine, 1)
    nib.save(image, tmp_path / "two.nii")
    with pytest.raises(CaseError, match="sform says axes LPS, qform says RPS"):
        decode_image([str(tmp_path / "two.nii")])


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_every_number_type_gives_the_same_hu(tmp_path, dtype):
    path = write_nifti(tmp_path / "ct.nii.gz", HU.astype(dtype), ras_affine(GEOMETRY))
    image = decode_image([str(path)])
    assert image.array.dtype == np.int16
    assert np.array_equal(image.array, HU)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [(np.uint16, 1, -1030), (np.int16, 1, 24), (np.int16, 0.5, 0), (np.int16, 2, -30000), (np.int32, 1, -1024)],
)
def test_slope_and_intercept_are_applied_once(tmp_path, dtype, slope, intercept):
    hu = HU // 2 * 2
    path = write_nifti(tmp_path / "ct.nii", ((hu.astype(int) - intercept) / slope).astype(dtype), ras_affine(GEOMETRY))
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(bytes(data))
    assert np.array_equal(decode_image([str(path)]).array, hu)


def test_a_fourth_axis_of_length_one_is_dropped_and_a_longer_one_refused(tmp_path):
    affine = ras_affine(GEOMETRY)
    data = HU.transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(data[..., None], affine), tmp_path / "one.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([data] * 3, -1), affine), tmp_path / "three.nii.gz")
    assert np.array_equal(decode_image([str(tmp_path / "one.nii.gz")]).array, HU)
    with pytest.raises(CaseError, match=r"three\.nii\.gz is 4-D \(14 x 12 x 10 x 3"):
        decode_image([str(tmp_path / "three.nii.gz")])


def test_a_header_and_image_pair_is_read(tmp_path):
    nib.save(nib.Nifti1Pair(HU.transpose(2, 1, 0), ras_affine(GEOMETRY)), tmp_path / "ct.hdr")
    image = decode_image([str(tmp_path / "ct.hdr")])
    assert np.array_equal(image.array, HU)
    assert_same_place(image.geometry, GEOMETRY)


def test_an_analyze_file_is_refused(tmp_path):
    nib.save(nib.AnalyzeImage(HU.transpose(2, 1, 0), np.diag([1, 1, 1, 1])), tmp_path / "ct.hdr")
    with pytest.raises(CaseError, match="does not store left and right"):
        decode_image([str(tmp_path / "ct.hdr")])


def test_holes_and_numbers_beyond_int16_are_said(tmp_path):
    hu = HU.astype(np.float32)
    hu[0, 0, :3], hu[1, 1, 0] = np.nan, 1e6
    image = decode_image([str(write_nifti(tmp_path / "ct.nii.gz", hu, ras_affine(GEOMETRY)))])
    assert (image.array[0, 0, :3] == -1024).all()
    assert image.array[1, 1, 0] == 32767
    assert image.findings == (
        "3 voxels were not finite and became -1024 HU",
        "1 voxels lay outside int16 and were clipped",
    )


def test_sheared_axes_keep_their_places_and_are_said(tmp_path):
    affine = ras_affine(GEOMETRY)
    affine[1, 2] = 0.6  # the table moves askew
    image = decode_image([str(write_nifti(tmp_path / "ct.nii.gz", HU, affine))])
    expected = (affine @ [3, 5, 7, 1])[:3] * [-1, -1, 1]
    assert np.allclose(image.geometry.world((7, 5, 3)), expected[::-1], atol=1e-3)
    assert "degrees from a right angle" in image.findings[0]


@pytest.mark.parametrize("spacing", [(2.5, 1.5, 0.001), (2.5, 1.5, 100.0)])
def test_a_spacing_that_no_ct_has_is_refused(tmp_path, spacing):
    affine = ras_affine(Geometry(HU.shape, spacing))
    with pytest.raises(CaseError, match=r"ct\.nii: spacing 2\.5 x 1\.5 x (0\.001|100) mm"):
        decode_image([str(write_nifti(tmp_path / "ct.nii", HU, affine))])


# damaged files


def test_a_text_file_named_nifti_is_refused_with_its_first_bytes(tmp_path):
    (tmp_path / "ct.nii.gz").write_text("<html>Not found</html>")
    with pytest.raises(CaseError, match=r"ct\.nii\.gz is not a readable NIfTI file .*<html>Not"):
        decode_image([str(tmp_path / "ct.nii.gz")])


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii", "ct.nrrd", "ct.mha"])
@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.97])
def test_a_file_cut_short_is_refused_by_name(tmp_path, name, kept):
    path = tmp_path / name
    if name.startswith("ct.nii"):
        write_nifti(path, HU, ras_affine(GEOMETRY))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(HU), str(path), True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(CaseError, match=name):
        decode_image([str(path)])


def test_a_header_that_promises_more_than_the_file_holds_asks_for_no_memory(tmp_path):
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY))
    data = bytearray(path.read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    for name, content in (("big.nii", bytes(data)), ("big.nii.gz", gzip.compress(bytes(data)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaseError, match="promises"):
            decode_image([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.hdr"])
def test_bytes_behind_the_voxels_of_a_nifti_are_a_finding(tmp_path, name):
    path = tmp_path / name
    nib.save((nib.Nifti1Pair if name == "ct.hdr" else nib.Nifti1Image)(HU.transpose(2, 1, 0), np.eye(4)), path)
    data = path.with_suffix(".img") if name == "ct.hdr" else path
    whole = gzip.decompress(data.read_bytes()) if name == "ct.nii.gz" else data.read_bytes()
    data.write_bytes(gzip.compress(whole + b"\1" * 77) if name == "ct.nii.gz" else whole + b"\1" * 77)
    image = decode_image([str(path)])
    assert np.array_equal(image.array, HU)
    assert image.findings == ("77 bytes follow the voxels and were not read",)


def test_a_nifti_whose_voxels_would_begin_inside_its_header_is_refused(tmp_path):
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY))
    whole = path.read_bytes()
    path.write_bytes(whole[:108] + struct.pack("<f", 0.0) + whole[112:])
    with pytest.raises(CaseError, match=r"ct\.nii: its voxels are said to begin at byte 0, inside its header"):
        decode_image([str(path)])


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.hdr"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_nifti_extension_is_skipped_and_one_that_promises_too_much_refused(tmp_path, name, order):
    path, kind = tmp_path / name, nib.Nifti1Pair if name == "ct.hdr" else nib.Nifti1Image
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(HU.transpose(2, 1, 0), np.eye(4), header)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"seen by somebody" * 8))
    nib.save(image, path)
    assert np.array_equal(decode_image([str(path)]).array, HU)
    whole = gzip.decompress(path.read_bytes()) if name == "ct.nii.gz" else path.read_bytes()
    assert struct.unpack_from(f"{order}i", whole, 352) == (144,)
    spoilt = whole[:352] + struct.pack(f"{order}i", 2**31 - 16) + whole[356:]
    path.write_bytes(gzip.compress(spoilt) if name == "ct.nii.gz" else spoilt)
    with pytest.raises(CaseError, match="promises an extension of 2147483632 bytes"):
        decode_image([str(path)])


def test_a_nifti_that_unpacks_without_end_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing.decoding.nifti.MOST_LEFT_OVER", 1 << 22)
    path = write_nifti(tmp_path / "ct.nii", HU, ras_affine(GEOMETRY))
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(path.read_bytes() + bytes(6 << 20)))
    with pytest.raises(CaseError, match=r"bomb\.nii\.gz: .*more than 4194304 bytes follow its voxels"):
        decode_image([str(tmp_path / "bomb.nii.gz")])


def test_a_file_that_is_gone_is_a_case_error(tmp_path):
    with pytest.raises(CaseError, match=r"ct\.nrrd is not there any more"):
        decode_image([str(tmp_path / "ct.nrrd")])


def test_one_flipped_bit_in_a_gzip_is_found_by_its_checksum(tmp_path):
    path = write_nifti(tmp_path / "ct.nii.gz", np.zeros((64, 64, 64), np.int16), ras_affine(GEOMETRY))
    for place in (-1, -6):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        (tmp_path / "bad.nii.gz").write_bytes(bytes(data))
        with pytest.raises(CaseError, match=r"bad\.nii\.gz: damaged"):
            decode_image([str(tmp_path / "bad.nii.gz")])


@pytest.mark.parametrize("number", ["-3", "0", "many"])
def test_a_metaimage_with_impossible_dimensions_does_not_end_the_process(tmp_path, number):
    sitk.WriteImage(sitk.GetImageFromArray(HU), str(tmp_path / "ct.mha"))
    data = (tmp_path / "ct.mha").read_bytes().replace(b"NDims = 3", f"NDims = {number}".encode())
    (tmp_path / "ct.mha").write_bytes(data)
    with pytest.raises(CaseError, match=f"NDims = '{number}'"):
        decode_image([str(tmp_path / "ct.mha")])


@pytest.mark.parametrize(("name", "header"), [("ct.nii", 352), ("ct.nii.gz", None), ("ct.nrrd", 400), ("ct.mha", 300)])
def test_random_damage_gives_a_case_error_or_a_volume_and_never_anything_else(tmp_path, name, header):
    path = tmp_path / name
    if name.startswith("ct.nii"):
        write_nifti(path, HU, ras_affine(GEOMETRY), qform=1)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(HU), str(path))
    whole, rng, messages = path.read_bytes(), np.random.default_rng(5), []
    for _ in range(80):
        data = bytearray(whole)
        for place in rng.integers(0, header or len(data), 4):
            data[place] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            assert decode_image([str(path)]).array.dtype == np.int16
        except CaseError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(name in message for message in messages)


# NRRD, MetaImage


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("matrix", [np.eye(3), np.diag([1, -1, -1]), rotation((0.2, 0, 0.1))])
def test_nrrd_and_metaimage_lie_where_their_header_says(tmp_path, suffix, matrix):
    geometry = Geometry(HU.shape, (2.5, 1.5, 1.25), (-40.0, 15.0, 7.5), direction(matrix))
    image = sitk.GetImageFromArray(HU)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm[::-1])
    image.SetDirection(np.asarray(geometry.direction)[::-1, ::-1].ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"ct.{suffix}"))
    decoded = decode_image([str(tmp_path / f"ct.{suffix}")])
    assert np.array_equal(decoded.array, HU)
    assert_same_place(decoded.geometry, geometry)


NRRD = """NRRD0004
type: short
dimension: 3
sizes: {sizes}
encoding: raw
endian: little
kinds: domain domain domain
{space}
space directions: (1.25,0,0) (0,1.5,0) (0,0,2.5)
space origin: (7.5,15,-40)

"""


@pytest.mark.parametrize(
    ("space", "signs"),
    [("left-posterior-superior", (1, 1)), ("right-anterior-superior", (-1, -1)), ("left-anterior-superior", (-1, 1))],
)
def test_the_space_of_a_nrrd_is_honoured(tmp_path, space, signs):
    header = NRRD.format(sizes="14 12 10", space=f"space: {space}")
    (tmp_path / "ct.nrrd").write_bytes(header.encode() + HU.tobytes())
    image = decode_image([str(tmp_path / "ct.nrrd")])
    assert np.allclose(image.geometry.origin_mm, (-40.0, 15.0 * signs[0], 7.5 * signs[1]))


@pytest.mark.parametrize("space", ["space dimension: 3", "space: scanner-xyz"])
def test_a_nrrd_without_an_anatomical_space_is_refused(tmp_path, space):
    (tmp_path / "ct.nrrd").write_bytes(NRRD.format(sizes="14 12 10", space=space).encode() + HU.tobytes())
    with pytest.raises(CaseError, match=r"ct\.nrrd"):
        decode_image([str(tmp_path / "ct.nrrd")])


def test_colours_and_flat_pictures_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([HU] * 3, -1), isVector=True), str(tmp_path / "colour.mha"))
    sitk.WriteImage(sitk.GetImageFromArray(HU[0]), str(tmp_path / "flat.nrrd"))
    write_nifti(tmp_path / "flat.nii.gz", HU, ras_affine(GEOMETRY))
    nib.save(nib.Nifti1Image(HU[0].T, np.eye(4)), tmp_path / "flat.nii.gz")
    for name, words in (("colour.mha", "3 numbers a voxel"), ("flat.nrrd", "2-D"), ("flat.nii.gz", "2-D")):
        with pytest.raises(CaseError, match=words):
            decode_image([str(tmp_path / name)])


# labels


def test_label_values_become_class_ids_and_masks_are_joined(tmp_path):
    values = np.zeros(HU.shape, np.uint8)
    values[2:4], values[4:6], values[6:8] = 1, 2, 3
    path = write_nifti(tmp_path / "x_seg.nii.gz", values, ras_affine(GEOMETRY))
    mask = write_nifti(tmp_path / "heart.nii.gz", (values == 0).astype(np.uint8) * 255, ras_affine(GEOMETRY))
    labels = (
        LabelFile(path=str(path), classes=((1, 5), (2, 5), (2, LESION))),
        LabelFile(path=str(mask), classes=((1, 51),), binary=True),
    )
    anatomy, lesion, findings = decode_labels(case(image=(), labels=labels), GEOMETRY)
    assert np.array_equal(anatomy, np.select([values == 0, values <= 2], [51, 5], 0))
    assert np.array_equal(lesion, values == 2)
    assert findings == ("x_seg.nii.gz holds values without a declared meaning (3): left unnamed",)


def test_a_label_stored_along_other_axes_is_turned_exactly(tmp_path):
    values = np.random.default_rng(0).integers(0, 118, HU.shape).astype(np.uint8)
    geometry = Geometry(
        HU.shape, GEOMETRY.spacing_mm, tuple(GEOMETRY.world(np.array(HU.shape) - 1)), direction(-np.eye(3))
    )
    flipped = values[::-1, ::-1, ::-1]
    path = write_nifti(tmp_path / "anatomy.nii.gz", flipped, ras_affine(geometry))
    label = LabelFile(path=str(path), classes=tuple((v, v) for v in range(1, 118)))
    assert np.array_equal(decode_labels(case(image=(), labels=(label,)), GEOMETRY)[0], values)


@pytest.mark.parametrize(("shift", "accepted"), [(0.01, True), (3.0, False)])
def test_an_affine_off_by_rounding_is_the_images_and_a_real_shift_is_refused(tmp_path, shift, accepted):
    affine = ras_affine(GEOMETRY)
    affine[2, 3] += shift
    path = write_nifti(tmp_path / "x_lesion.nii.gz", (HU > 0).astype(np.uint8), affine)
    labelled = case(image=(), lesion=(str(path),))
    if accepted:
        assert np.array_equal(decode_labels(labelled, GEOMETRY)[1], HU > 0)
    else:
        with pytest.raises(CaseError, match=r"x_lesion\.nii\.gz does not lie on its image's grid .* origin \(-37,"):
            decode_labels(labelled, GEOMETRY)


def test_a_label_of_another_shape_is_refused_with_both_shapes(tmp_path):
    path = write_nifti(tmp_path / "x_lesion.nii.gz", (HU[:5] > 0).astype(np.uint8), ras_affine(GEOMETRY))
    with pytest.raises(CaseError, match=r"label shape \(5, 12, 14\).*image shape \(10, 12, 14\)"):
        decode_labels(case(image=(), lesion=(str(path),)), GEOMETRY)


def test_a_label_with_fractions_is_refused(tmp_path):
    path = write_nifti(tmp_path / "x_lesion.nii.gz", np.full(HU.shape, 0.5, np.float32), ras_affine(GEOMETRY))
    with pytest.raises(CaseError, match="fractions"):
        decode_labels(case(image=(), lesion=(str(path),)), GEOMETRY)


def test_a_label_without_orientation_takes_the_images(tmp_path):
    path = write_nifti(tmp_path / "x_lesion.nii.gz", (HU > 0).astype(np.uint8), ras_affine(GEOMETRY), sform=0, qform=0)
    _, lesion, findings = decode_labels(case(image=(), lesion=(str(path),)), GEOMETRY)
    assert np.array_equal(lesion, HU > 0)
    assert findings == ("x_lesion.nii.gz carries no orientation; the image's was taken",)


# whole cases


def test_a_volume_carries_labels_companions_and_findings(tmp_path):
    image = write_nifti(tmp_path / "ct.nii.gz", HU, ras_affine(GEOMETRY))
    dose = write_nifti(tmp_path / "low.nii.gz", HU + 5, ras_affine(GEOMETRY))
    whole = case(image=(str(image),), companions=(("low_dose", str(dose)),), notes=("something odd",))
    volume = read_volume(whole)
    assert np.array_equal(volume.companions["low_dose"], HU + 5)
    assert volume.findings == ("something odd",)
    assert volume.anatomy is None
    assert volume.anatomy_kind == "none"


def test_a_companion_with_its_own_geometry_comes_onto_the_images_grid(tmp_path):
    image = write_nifti(tmp_path / "ct.nii.gz", HU, ras_affine(GEOMETRY))
    thick = np.full((5, 12, 14), 77, np.int16)
    affine = ras_affine(Geometry(thick.shape, (5.0, 1.5, 1.25), (-38.75, 15.0, 7.5)))
    write_nifti(tmp_path / "thick.nii.gz", thick, affine)
    volume = read_volume(case(image=(str(image),), companions=(("thick", str(tmp_path / "thick.nii.gz")),)))
    assert volume.companions["thick"].shape == HU.shape
    assert (volume.companions["thick"] == 77).all()


def test_a_problem_known_when_listed_is_raised():
    with pytest.raises(CaseError, match="Modality MR"):
        read_volume(case(image=("x.dcm",), problem="Modality MR is not CT."))
