"""From real files through the command to stored voxels, judged by readers and references that are not ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import zarr

CASES = {
    "abdomen": "abdomen-3mm",
    "chest-dicom": "chest-4mm",
    "lung": "lung-lesion",
    "visits": "lung-two-visits",
    "head": "head-4mm",
    "phantom": "head-phantom-thick-thin",
    "sarcoma": "sarcoma-dicom-rtstruct",
}


def meddiff(*arguments: str, home: Path) -> subprocess.CompletedProcess:
    """The command, as a user runs it, with its state in `home`."""
    environment = {**os.environ, "MEDDIFF_HOME": str(home), "MEDDIFF_LAKE": ""}
    command = [str(Path(sys.executable).with_name("meddiff")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=900)


@pytest.fixture(scope="module")
def lake(real_data, tmp_path_factory) -> dict[str, dict]:
    """Seven folders of real CTs, ingested by the command with the recipe `paper`'s rules at 1 mm; rows by case."""
    home = tmp_path_factory.mktemp("home")
    data = tmp_path_factory.mktemp("data")
    for name, folder in CASES.items():
        shutil.copytree(real_data / folder, data / name)
    done = meddiff("ingest", "folder", "--path", str(data), "--recipe", "demo", home=home)
    assert done.returncode == 0, done.stderr
    rows = json.loads(meddiff("cases", "--recipe", "demo", "--json", home=home).stdout)
    return {row["case"]: row for row in rows}


def sealed(lake: dict[str, dict], start: str) -> list[dict]:
    """The sealed rows whose case id starts so."""
    rows = [row for case, row in lake.items() if case.startswith(start) and row["status"] == "sealed"]
    assert rows, f"no sealed case starts with {start}: {sorted(lake)}"
    return rows


def reference(row: dict) -> sitk.Image:
    """The case's image as ITK reads it, from the origin that the row names."""
    paths = row["origin"]
    dicom = [path for path in paths if path.endswith(".dcm")]
    if len(dicom) > 1:
        reader = sitk.ImageSeriesReader()
        folder = str(Path(dicom[0]).parent)
        names = [set(reader.GetGDCMSeriesFileNames(folder, s)) for s in reader.GetGDCMSeriesIDs(folder)]
        chosen = max(names, key=lambda files: len(files & set(dicom)))
        reader.SetFileNames([p for p in reader.GetGDCMSeriesFileNames(folder) if p in chosen] or sorted(chosen))
        return reader.Execute()
    return sitk.ReadImage(paths[0])


def stored(row: dict, name: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(array z,y,x; spacing mm; LPS world position of voxel 0), read by zarr-python from the OME metadata alone."""
    group = zarr.open_group(f"{row['url']}/{name}".rstrip("/"), mode="r")
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][0]
    steps = {step["type"]: step for step in dataset["coordinateTransformations"]}
    array = np.asarray(group[dataset["path"]][:])
    return array, np.array(steps["scale"]["scale"]), np.array(steps["translation"]["translation"])


def interior_points(array: np.ndarray, image: sitk.Image, spacing: np.ndarray, origin: np.ndarray, count: int = 400):
    """Random stored voxels whose eight source neighbours all exist, with their LPS world points (x, y, z)."""
    rng = np.random.default_rng(0)
    found = []
    while len(found) < count:
        index = rng.integers(0, array.shape)
        point = tuple(float(v) for v in (origin + index * spacing)[::-1])
        place = np.array(image.TransformPhysicalPointToContinuousIndex(point))
        if (place >= 0).all() and (place <= np.array(image.GetSize()) - 1).all():
            found.append((tuple(index), point))
    return found


@pytest.mark.parametrize("start", ["abdomen", "lung", "visits", "head", "chest-dicom"])
def test_hounsfield_values_agree_with_itk_at_the_same_point_of_the_patient(lake, start):
    for row in sealed(lake, start):
        array, spacing, origin = stored(row)
        image = sitk.Cast(sitk.Clamp(reference(row), sitk.sitkFloat32, -1024.0, 32767.0), sitk.sitkFloat32)
        points = interior_points(array, image, spacing, origin)
        expected = np.array([image.EvaluateAtPhysicalPoint(point, sitk.sitkLinear) for _, point in points])
        found = np.array([array[index] for index, _ in points], float)
        assert np.abs(found - expected).max() <= 1.0, row["case"]


def test_a_label_is_the_nearest_source_voxel_and_keeps_its_class_id(lake, real_data):
    row = sealed(lake, "abdomen")[0]
    array, spacing, origin = stored(row, "labels/anatomy")
    source = sitk.ReadImage(str(real_data / "abdomen-3mm" / "anatomy.nii.gz"))
    points = interior_points(array, source, spacing, origin, 2000)
    expected = np.array([source.EvaluateAtPhysicalPoint(p, sitk.sitkNearestNeighbor) for _, p in points])
    found = np.array([array[index] for index, _ in points])
    places = np.array([source.TransformPhysicalPointToContinuousIndex(p) for _, p in points])
    no_tie = (np.abs(places % 1 - 0.5) > 1e-3).all(1)
    organ = (expected > 0) & no_tie
    assert organ.sum() > 200
    assert (found[organ] == expected[organ]).all()
    assert set(np.unique(array)) <= set(range(120))
    assert 5 in np.unique(array), "the liver is class 5"
    assert row["anatomy"] == "full"


def test_a_structure_set_beside_a_series_becomes_the_lesion_of_its_case(lake, real_data):
    (row,) = sealed(lake, "sarcoma")
    array, spacing, origin = stored(row, "labels/lesion")
    source = sitk.ReadImage(str(real_data / "sarcoma/STS_032/CT_mask.nii.gz"))
    points = interior_points(array, source, spacing, origin, 4000)
    expected = np.array([source.EvaluateAtPhysicalPoint(p, sitk.sitkNearestNeighbor) for _, p in points])
    places = np.array([source.TransformPhysicalPointToContinuousIndex(p) for _, p in points])
    no_tie = (np.abs(places % 1 - 0.5) > 1e-3).all(1)
    found = np.array([array[index] for index, _ in points])
    assert expected[no_tie].sum() > 40
    assert (found[no_tie] == expected[no_tie]).all()
    assert row["lesion"] is True
    assert any(path.endswith("RS.dcm") for path in row["origin"])


def test_a_landmark_keeps_its_place_in_millimetres(lake, real_data):
    """The liver's centre of mass, from the source's own header and from the stored metadata."""
    row = sealed(lake, "abdomen")[0]
    array, spacing, origin = stored(row, "labels/anatomy")
    source = sitk.ReadImage(str(real_data / "abdomen-3mm" / "anatomy.nii.gz"))
    values = sitk.GetArrayFromImage(source)
    centre = np.argwhere(values == 5).mean(0)
    expected = np.array(source.TransformContinuousIndexToPhysicalPoint([float(v) for v in centre[::-1]]))[::-1]
    found = origin + np.argwhere(array == 5).mean(0) * spacing
    assert np.abs(found - expected).max() < 1.5, "half a source voxel"


def test_lesions_visits_and_formats_are_told_in_the_case_table(lake):
    assert sealed(lake, "lung")[0]["lesion"] is True
    visits = sealed(lake, "visits")
    assert len(visits) == 2
    assert len({row["patient"] for row in visits}) == 1
    assert len({row["split"] for row in visits}) == 1
    for row in lake.values():
        assert set(row) >= {
            "source",
            "case",
            "patient",
            "status",
            "reason",
            "url",
            "origin",
            "regions",
            "anatomy",
            "lesion",
            "licence",
            "cluster",
            "split",
        }
        assert all(Path(path).is_absolute() for path in row["origin"])
        assert (row["reason"] is None) == (row["status"] == "sealed")


def test_the_same_scan_as_nrrd_and_as_dicom_is_one_cluster(lake):
    rows = sealed(lake, "chest-dicom")
    assert len(rows) == 2
    assert len({row["cluster"] for row in rows}) == 1
