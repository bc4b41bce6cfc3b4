"""Real CTs of several formats through the whole conversion, against ITK's own reading of the files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from infra.lake import Lake, open_lake
from preprocessing.case import Case
from preprocessing.convert import convert_case
from preprocessing.manifest import ManifestRow
from preprocessing.recipe import demo
from preprocessing.sources.folder import FolderSource
from preprocessing.store import StoredCase, open_case

RECIPE = demo().replace(spacing_mm=3.0, levels=2)


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    return open_lake(str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def source(real_data) -> FolderSource:
    return FolderSource(path=str(real_data))


@pytest.fixture(scope="module")
def listed(source) -> dict[str, Case]:
    return {case.id: case for case in source.cases()}


@pytest.fixture(scope="module")
def convert(source, listed, lake):
    rows: dict[str, ManifestRow] = {}

    def once(case: str) -> ManifestRow:
        if case not in rows:
            rows[case] = convert_case(listed[case], source, RECIPE, lake)
        return rows[case]

    return once


def stored(lake: Lake, row: ManifestRow) -> StoredCase:
    assert row.reason is None
    return open_case(lake, row.key)


def at(image: SimpleITK.Image, points_zyx: np.ndarray) -> np.ndarray:
    return np.array([image.EvaluateAtPhysicalPoint([float(v) for v in point[::-1]]) for point in points_zyx])


@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("abdomen-3mm", "abdomen-3mm/ct.nii.gz"),
        ("chest-full", "chest-full/ct.nii.gz"),
        ("lung-lesion", "lung-lesion/ct.nrrd"),
        ("lung-two-visits__3DCT_lung_baseline", "lung-two-visits/3DCT_lung_baseline.mha"),
    ],
)
def test_hounsfield_units_stay_at_their_place_in_the_patient(convert, lake, real_data, case, file):
    found = stored(lake, convert(case))
    reference = SimpleITK.Cast(SimpleITK.ReadImage(str(real_data / file)), SimpleITK.sitkFloat32)
    reference = SimpleITK.Maximum(reference, -1024.0)
    geometry = found.geometry(0)
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(2, n - 2, 300) for n in geometry.shape], 1)
    ours = found.read_all("image")[tuple(index.T)]
    assert np.abs(ours - at(reference, geometry.world(index))).max() <= 1


def test_a_dicom_series_lies_where_its_header_says(convert, lake, real_data):
    found = stored(lake, convert("abdomen-dicom"))
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(real_data / "abdomen-dicom"))
    reference = SimpleITK.Maximum(SimpleITK.Cast(SimpleITK.ReadImage(names), SimpleITK.sitkFloat32), -1024.0)
    geometry = found.geometry(0)
    rng = np.random.default_rng(0)
    index = np.stack([rng.integers(2, n - 2, 300) for n in geometry.shape], 1)
    ours = found.read_all("image")[tuple(index.T)]
    assert np.abs(ours - at(reference, geometry.world(index))).max() <= 1


def test_class_ids_are_kept_exactly(convert, lake, real_data):
    found = stored(lake, convert("abdomen-3mm"))
    labels = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(real_data / "abdomen-3mm/anatomy.nii.gz")), "LPS")
    truth = SimpleITK.GetArrayFromImage(labels)
    ours = found.read_all("anatomy")
    named = truth > 0
    assert ours.shape == truth.shape
    assert (ours[named] == truth[named]).all()
    assert set(np.unique(ours[~named])) == {0, 118}


@pytest.mark.parametrize(
    ("case", "regions"),
    [
        ("chest-full", ("chest", "abdomen")),
        ("abdomen-3mm", ("abdomen",)),
        ("head-4mm", ("head_neck",)),
        ("lung-lesion", ("chest",)),
        ("chest-4mm__ct-64", ("chest",)),
        ("sarcoma__STS_001", ()),
        ("spine-crop__sub-ct_label-22", ()),
    ],
)
def test_regions_are_found_where_they_are_certain(convert, lake, case, regions):
    row = convert(case)
    assert row.regions == regions
    if not regions:
        assert any(finding.startswith("no region") for finding in stored(lake, row).record.findings)


def test_a_lesion_mask_travels_with_its_image(convert, lake):
    row = convert("sarcoma__STS_001")
    assert row.lesion
    assert stored(lake, row).read_all("lesion").any()


def test_one_scan_in_two_formats_is_stored_alike(convert, lake):
    one, two = (stored(lake, convert(case)) for case in ("chest-4mm__ct-64", "chest-4mm__dicom"))
    assert one.geometry(0).shape == two.geometry(0).shape
    difference = np.abs(one.read_all("image").astype(int) - two.read_all("image"))
    assert difference.max() <= 1


def test_nothing_of_the_users_path_reaches_the_lake(convert, lake, real_data: Path):
    row = convert("chest-full")
    documents = [lake.read(name) for name in lake.list(row.key) if name.endswith("zarr.json")]
    assert not [d for d in documents if str(real_data).encode() in d]
    assert not [o for o in row.origin if str(real_data) in o]
