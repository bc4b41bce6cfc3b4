"""Masks as label maps and as DICOM SEG, read again by the package's readers, nibabel, ITK and highdicom."""

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from ct_samples import ball_hu, ras_affine, rotation, write_dicom, write_nifti
from dicom_samples import write_enhanced
from encoding_samples import case_of
from whole_case import read_volume

from infra.errors import UserError
from preprocessing.anatomy import class_ids, class_names
from preprocessing.case import LESION, CaseError, LabelFile
from preprocessing.decoding.decode import read_image
from preprocessing.encoding.codes import meaning_of
from preprocessing.encoding.write import write_mask
from preprocessing.geometry import Geometry
from preprocessing.sources.folder import FolderSource

HU = ball_hu((8, 11, 14))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]
GRID = Geometry(HU.shape, (2.5, 1.5, 0.75), (-40.0, 12.0, 33.0))


def masks_of(shape=HU.shape, names=("lesion", "kidney_left")) -> dict[str, np.ndarray]:
    """Random blobs that share no voxel and leave slices empty."""
    random = np.random.default_rng(4).integers(0, 3, shape)
    random[[0, 5]] = 0
    return {name: (random == number).astype(np.uint8) for number, name in enumerate(names, 1)}


def labelled(case, path, classes):
    return case.replace(labels=(LabelFile(path=str(path), classes=classes),), anatomy="partial")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("source", ["nifti", "scaled", "nrrd", "dicom"])
def test_a_label_map_lies_on_its_image(tmp_path, source, ending):
    case, masks = make(tmp_path, source), masks_of()
    out = tmp_path / f"mask{ending}"
    assert write_mask(case, masks, out) == {"lesion": 1, "kidney_left": 2}
    volume = read_volume(labelled(case, out, ((1, LESION), (2, 3))))
    assert np.array_equal(volume.lesion, masks["lesion"])
    assert np.array_equal(volume.anatomy == 3, masks["kidney_left"])
    expected = masks["lesion"] + 2 * masks["kidney_left"]
    if ending.startswith(".nii"):
        image = nib.load(out)
        assert image.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(image.dataobj).T, expected)
        assert image.header.extensions == []
        assert image.header.get_intent()[0] == "label"
        assert b"1 lesion, 2 kidney_left" in image.header["descrip"].tobytes()
        if source in ("nifti", "scaled"):
            assert np.array_equal(image.affine, nib.load(case.image[0]).affine)
    else:
        image = SimpleITK.ReadImage(str(out))
        assert np.array_equal(SimpleITK.GetArrayFromImage(image), expected)
        assert image.GetMetaData("Segment1_Name") == "kidney_left"
        assert image.GetMetaData("Segment1_LabelValue") == "2"


def make(folder, kind):
    if kind == "dicom":
        return case_of(*write_dicom(folder / "series", HU, PLACES))
    if kind == "nrrd":
        image = SimpleITK.GetImageFromArray(HU)
        image.SetDirection(rotation((0.2, -0.1, 0.3)).ravel().tolist())
        SimpleITK.WriteImage(image, str(folder / "ct.nrrd"))
        return case_of(folder / "ct.nrrd")
    affine = ras_affine(GRID)
    affine[:3, :3] = rotation((0.2, -0.1, 0.3)) @ affine[:3, :3]
    path = write_nifti(folder / "ct.nii", HU, affine, sform=2, qform=1)
    if kind == "scaled":
        image = nib.load(path)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
        image.header["cal_max"] = 400
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.float32(0.5), affine, image.header), path)
    return case_of(path)


def test_a_mask_of_a_volume_without_an_original(tmp_path):
    write_mask(None, {"liver": HU > 0}, tmp_path / "mask.nii.gz", geometry=GRID)
    assert np.array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj).T, HU > 0)
    assert np.allclose(nib.load(tmp_path / "mask.nii.gz").affine, ras_affine(GRID))


# DICOM SEG

SERIES = {
    "axial": ([1, 0, 0, 0, 1, 0], PLACES),
    "tilted": ([1, 0, 0, 0, float(np.cos(0.3)), float(-np.sin(0.3))], PLACES),
    "coronal": ([1, 0, 0, 0, 0, -1], [(3.0, 4.0 + 2 * k, 50.0) for k in range(8)]),
}


@pytest.mark.parametrize("kind", SERIES)
def test_a_seg_refers_to_the_slices_it_was_drawn_on(tmp_path, kind):
    orientation, places = SERIES[kind]
    facts = {"FrameOfReferenceUID": "1.2.6.6", "PatientName": "Doe^Jané", "SpecificCharacterSet": "ISO_IR 100"}
    facts |= {"PatientSex": "?", "PatientBirthDate": "1970", "StudyDate": "19991231", "SeriesNumber": 3}
    sources = write_dicom(tmp_path / "in", HU, places, ImageOrientationPatient=orientation, **facts)
    case, masks = case_of(*sources), masks_of()
    masks["liver"] = masks["lesion"]  # they may overlap
    out = tmp_path / "seg.dcm"
    assert write_mask(case, masks, out) == {"lesion": 1, "kidney_left": 2, "liver": 3}
    volume = read_volume(labelled(case, out, ((1, LESION), (2, 3))))
    assert np.array_equal(volume.lesion, masks["lesion"])
    assert np.array_equal(volume.anatomy == 3, masks["kidney_left"])
    assert not any("outside" in finding for finding in volume.findings)
    check_seg(out, case, masks)
    seg = pydicom.dcmread(out)
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in seg.SegmentSequence]
    assert [kind.CodeMeaning for kind in kinds] == ["Lesion", "Kidney", "Liver"]
    assert kinds[1].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    for keyword in ("PatientName", "PatientSex", "PatientBirthDate", "StudyDate", "StudyInstanceUID", "PatientID"):
        assert seg[keyword].value == pydicom.dcmread(sources[0]).get(keyword), keyword
    assert seg.SeriesNumber == 1003


def check_seg(path, case, masks, grid=None):
    """As highdicom and pydicom read it: segments, codes, references and voxels."""
    seg = highdicom.seg.segread(path)
    assert [seg.get_segment_description(k).SegmentLabel for k in seg.segment_numbers] == list(masks)
    assert seg.ContentQualification == "RESEARCH"
    assert {d.SegmentAlgorithmName for d in seg.SegmentSequence} == {"MedDiff"}
    assert {d.SegmentAlgorithmType for d in seg.SegmentSequence} == {"AUTOMATIC"}
    by_instance = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, case.image)}
    assert {uid for _, _, uid in seg.get_source_image_uids()} <= set(by_instance)
    own = grid or read_image(case).geometry
    for number, mask in enumerate(masks.values(), 1):
        frames = [k for k, f in enumerate(seg.PerFrameFunctionalGroupsSequence) if segment_of(f) == number]
        assert len(frames) == np.count_nonzero(mask.any(axis=(1, 2)))
        for k in frames:
            group = seg.PerFrameFunctionalGroupsSequence[k]
            place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            index = own.index(place[::-1])
            assert np.allclose(index, np.rint(index), atol=1e-3)
            plane = seg.pixel_array.reshape(-1, *mask.shape[1:])[k]
            assert np.array_equal(plane, mask[round(index[0])])
            if grid is None and len(case.image) > 1:
                reference = group.DerivationImageSequence[0].SourceImageSequence[0]
                source = by_instance[reference.ReferencedSOPInstanceUID]
                assert np.allclose(np.array(source.ImagePositionPatient, float), place, atol=1e-6)


def segment_of(frame) -> int:
    return frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber


def test_a_folder_with_a_seg_of_ours_is_listed_with_its_classes(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES, FrameOfReferenceUID="1.2.6.6")
    masks = masks_of(names=("liver_lesion", "vertebrae_L3"))
    write_mask(case_of(*sources), masks, tmp_path / "in/seg.dcm")
    (case,) = FolderSource(path=str(tmp_path / "in")).cases()
    assert len(case.image) == 8
    volume = read_volume(case)
    assert np.array_equal(volume.lesion, masks["liver_lesion"])
    assert np.array_equal(volume.anatomy == class_ids()["vertebrae_L3"], masks["vertebrae_L3"])


def test_a_seg_of_files_that_lack_all_but_what_a_ct_needs(tmp_path):
    sources = write_dicom(tmp_path / "in", HU, PLACES, StudyInstanceUID=None, PatientID=None)
    case, masks = case_of(*sources), masks_of()
    write_mask(case, masks, tmp_path / "seg.dcm")
    check_seg(tmp_path / "seg.dcm", case, masks)


def test_a_mask_without_a_voxel_is_a_segment_all_the_same(tmp_path):
    case = case_of(*write_dicom(tmp_path / "in", HU, PLACES))
    masks = {**masks_of(), "spleen": np.zeros(HU.shape, np.uint8)}
    write_mask(case, masks, tmp_path / "seg.dcm")
    check_seg(tmp_path / "seg.dcm", case, masks)
    empty = {"lesion": np.zeros(HU.shape, bool)}
    write_mask(case, empty, tmp_path / "none.dcm")
    assert not read_volume(labelled(case, tmp_path / "none.dcm", ((1, LESION),))).lesion.any()


@pytest.mark.parametrize("stack", [0, 1])
def test_a_seg_of_one_volume_of_an_enhanced_file(tmp_path, stack):
    far = [(3.0, 4.0, 500.0 + 3 * k) for k in range(8)]
    path = write_enhanced(
        tmp_path / "in.dcm",
        np.concatenate([HU, HU[::-1]]),
        PLACES + far,
        stack=("1",) * 8 + ("2",) * 8,
        orientation=tuple([[1, 0, 0, 0, 1, 0]] * 16),
    )
    case, masks = case_of(path, stack=stack), masks_of()
    write_mask(case, masks, tmp_path / "seg.dcm")
    check_seg(tmp_path / "seg.dcm", case, masks)
    volume = read_volume(labelled(case, tmp_path / "seg.dcm", ((1, LESION), (2, 3))))
    assert np.array_equal(volume.lesion, masks["lesion"])


def test_a_seg_on_the_grid_that_uneven_slices_decode_to(tmp_path):
    steps = np.array([0, 2, 4, 6, 8, 12, 16, 20.0])
    case = case_of(*write_dicom(tmp_path / "in", HU, [(3.0, 4.0, 10 + z) for z in steps]))
    masks = masks_of((11, *HU.shape[1:]))
    write_mask(case, masks, tmp_path / "seg.dcm")
    volume = read_volume(labelled(case, tmp_path / "seg.dcm", ((1, LESION), (2, 3))))
    assert np.array_equal(volume.lesion, masks["lesion"])
    assert np.array_equal(volume.anatomy == 3, masks["kidney_left"])


def test_a_seg_on_a_finer_grid(tmp_path):
    case = case_of(*write_dicom(tmp_path / "in", HU, PLACES))
    grid = Geometry((16, 22, 28), (1.0, 0.75, 0.625), (10.0, 4.0, 3.0))
    masks = masks_of(grid.shape)
    write_mask(case, masks, tmp_path / "seg.dcm", geometry=grid)
    check_seg(tmp_path / "seg.dcm", case, masks, grid)
    measures = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.PixelSpacing, measures.SliceThickness) == ([0.75, 0.625], 1)


# codes


def test_most_classes_have_a_code_and_paired_ones_a_side():
    meanings = {name: meaning_of(name) for name in class_names().values() if name != "unknown"}
    nameless = {name for name, meaning in meanings.items() if meaning.kind.meaning == "Anatomical Structure"}
    assert nameless == {
        *(f"gluteus_{part}_{side}" for part in ("maximus", "medius", "minimus") for side in ("left", "right")),
        *(f"{part}_{side}" for part in ("autochthon", "iliopsoas") for side in ("left", "right")),
        *("atrial_appendage_left", "portal_vein_and_splenic_vein", "vertebrae_S1"),
    }
    for name, meaning in meanings.items():
        assert (meaning.side is not None) == ("left" in name.split("_") or "right" in name.split("_")), name
    assert meanings["vertebrae_T12"].kind.meaning.startswith("T12")
    assert meanings["kidney_left"].side.meaning == "Left"


@pytest.mark.parametrize(
    ("name", "kind", "region"),
    [
        ("lesion", "Lesion", None),
        ("Liver lesion", "Lesion", "Liver"),
        ("tumour_kidney_right", "Lesion", "Kidney"),
        ("liver", "Liver", None),
        ("something else", "Anatomical Structure", None),
    ],
)
def test_a_lesion_may_name_its_organ(name, kind, region):
    meaning = meaning_of(name)
    assert meaning.kind.meaning == kind
    assert (meaning.region.meaning if meaning.region else None) == region


# what is refused


def test_what_is_no_mask_of_this_grid_is_refused(tmp_path):
    case = case_of(write_nifti(tmp_path / "ct.nii", HU, ras_affine(GRID)))
    mask = np.zeros(HU.shape)
    for bad, words in (
        (mask[1:], r"thorax-7: lesion: the mask has \(7, 11, 14\) voxels"),
        (mask + 0.5, "runs from 0.5 to 0.5"),
        (mask + 7, "runs from 7 to 7"),
        (mask - 1, "runs from -1"),
        (mask * np.nan, "runs from nan"),
    ):
        with pytest.raises(CaseError, match=words):
            write_mask(case, {"lesion": bad}, tmp_path / "out.nii.gz")
    with pytest.raises(CaseError, match="liver overlaps another; write a DICOM SEG"):
        write_mask(case, {"lesion": mask + 1, "liver": mask + 1}, tmp_path / "out.nii.gz")
    with pytest.raises(CaseError, match="no mask is given"):
        write_mask(case, {}, tmp_path / "out.nii.gz")
    with pytest.raises(CaseError, match=r"thorax-7: its image is no DICOM series.*name a \.nii\.gz"):
        write_mask(case, {"lesion": mask}, tmp_path / "out.dcm")
    with pytest.raises(UserError, match=r"one of \.nii, \.nii\.gz, \.nrrd, \.mha, \.dcm"):
        write_mask(case, {"lesion": mask}, tmp_path / "out")
    (tmp_path / "out.nii").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        write_mask(case, {"lesion": mask}, tmp_path / "out.nii")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii", "out.nii"]


def test_a_label_of_the_case_is_never_replaced(tmp_path):
    case = case_of(write_nifti(tmp_path / "ct.nii", HU, ras_affine(GRID)))
    label = write_nifti(tmp_path / "lesion.nii", (HU > 0).astype(np.uint8), ras_affine(GRID))
    with pytest.raises(UserError, match="is the input itself"):
        write_mask(case.replace(lesion=(str(label),)), {"lesion": HU > 0}, label, overwrite=True)
