"""Real CTs of several formats through the whole conversion, against ITK's own reading of the files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from infra.lake import Lake, open_lake
from preprocessing.case import LESION, Case
from preprocessing.convert import convert_case
from preprocessing.geometry import Geometry
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


ROUND_TRIPS = (
    "abdomen-3mm",
    "abdomen-3mm-crop",
    "abdomen-dicom",
    "chest-4mm__ct-64",
    "chest-4mm__dicom",
    "chest-full",
    "head-4mm",
    *(f"head-neck__pt_{n}" for n in (12, 2, 206, 24, 245, 305, 39, 54, 7, 98)),
    "head-phantom-thick-thin__1mm",
    "head-phantom-thick-thin__5mm",
    "lung-lesion",
    "lung-two-visits__3DCT_lung_baseline",
    "lung-two-visits__3DCT_lung_followup",
    "sarcoma-dicom-rtstruct__image",
    *(f"sarcoma__STS_{n}" for n in ("001", "003", "004", "022", "032")),
    "spine-crop__sub-ct_label-22",
)
REFUSED = {
    "chest-4mm__lm-64": "a label map",
    "chest-4mm__wholeLung-64": "a label map",
    "liver-dicom-seg": "too thin to be a volume: 3 x 512 x 512",
    "transfer-syntaxes": "2-D: 1 x 512 x 512",
}


def itk_image(paths: tuple[str, ...]) -> SimpleITK.Image:
    """The image as ITK reads it, turned to LPS; a series in the order that GDCM finds."""
    if Path(paths[0].removesuffix(".gz")).suffix in (".nii", ".nrrd", ".mha"):
        image = SimpleITK.ReadImage(paths[0])
    else:
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(Path(paths[0]).parent))
        image = SimpleITK.ReadImage([name for name in names if name in paths])
    return SimpleITK.DICOMOrient(image, "LPS")


def on_grid(image: SimpleITK.Image, geometry: Geometry, *, nearest: bool = False) -> np.ndarray:
    """An image on a stored grid by ITK alone, identity direction, (z, y, x)."""
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(n) for n in geometry.shape[::-1]])
    resampler.SetOutputSpacing(geometry.spacing_mm[::-1])
    resampler.SetOutputOrigin(geometry.origin_mm[::-1])
    resampler.SetInterpolator(SimpleITK.sitkNearestNeighbor if nearest else SimpleITK.sitkLinear)
    resampler.SetNumberOfThreads(1)
    return SimpleITK.GetArrayFromImage(resampler.Execute(image))


def source_index(image: SimpleITK.Image, geometry: Geometry) -> list[np.ndarray]:
    """Continuous indices along z, y and x in an ITK image of every voxel of a stored grid; they broadcast."""
    steps = np.asarray(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    back = np.linalg.inv(steps)[::-1, ::-1]
    places = [axis - start for axis, start in zip(grid_axes(geometry), image.GetOrigin()[::-1], strict=True)]
    return [sum(back[a, b] * places[b] for b in range(3) if abs(back[a, b]) > 1e-9) for a in range(3)]


def grid_axes(geometry: Geometry) -> list[np.ndarray]:
    """World z, y and x of a stored grid, each along its own axis."""
    triples = zip(geometry.shape, geometry.spacing_mm, geometry.origin_mm, strict=True)
    return list(np.ix_(*[start + step * np.arange(n) for n, step, start in triples]))


def test_every_real_case_has_its_round_trip_or_its_reason(listed, convert):
    assert set(listed) == {*ROUND_TRIPS, *REFUSED}
    for case, reason in REFUSED.items():
        row = convert(case)
        assert row.status == "quarantined"
        assert reason in row.reason


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_a_stored_image_is_what_itk_makes_of_the_file(convert, lake, listed, case):
    found = stored(lake, convert(case))
    geometry = found.geometry(0)
    image = SimpleITK.Maximum(SimpleITK.Cast(itk_image(listed[case].image), SimpleITK.sitkFloat32), -1024.0)
    at = source_index(image, geometry)
    within = [(axis >= 1) & (axis <= n - 2) for axis, n in zip(at, image.GetSize()[::-1], strict=True)]
    inside = np.broadcast_to(within[0] & within[1] & within[2], geometry.shape)
    apart = np.abs(found.read_all("image") - on_grid(image, geometry))[inside]
    assert inside.mean() > 0.4
    assert apart.mean() <= 0.5
    assert np.quantile(apart, 0.9999) <= 1.01
    assert found.record.audit.scale == 1
    assert found.record.audit.offset == 0


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_stored_labels_are_what_itk_makes_of_the_files(convert, lake, listed, case):
    """The nearest voxel's class everywhere but at equal distance from two."""
    found = stored(lake, convert(case))
    geometry, files = found.geometry(0), listed[case]
    labels = [label for label in files.labels if not label.path.endswith(".dcm")]
    anatomy, lesion = (np.zeros(geometry.shape, int) for _ in range(2))
    away = np.ones(geometry.shape, bool)
    for path, classes, binary in [
        *((label.path, label.classes, label.binary) for label in labels),
        *((path, ((1, LESION),), True) for path in files.lesion if not path.endswith(".dcm")),
    ]:
        image = itk_image((path,))
        values = on_grid(image, geometry, nearest=True).astype(int)
        for axis in source_index(image, geometry):
            away &= np.abs(axis % 1 - 0.5) > 1e-3
        for value, id_ in classes:
            here = values > 0 if binary else values == value
            if id_ == LESION:
                lesion[here] = 1
            else:
                anatomy[here & (anatomy == 0)] = id_
    ours = found.read_all("anatomy")
    named = away & (anatomy > 0)
    assert np.array_equal(ours[named], anatomy[named])
    assert set(np.unique(ours[away & (anatomy == 0)])) <= {0, 118, 119}
    if found.record.lesion and files.lesion and not files.lesion[0].endswith(".dcm"):
        assert np.array_equal(found.read_all("lesion")[away], lesion[away])


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
