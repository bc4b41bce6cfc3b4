"""Identity: a folder of identified patients leaves no name in the lake, in a log or on the screen."""

import gzip
import json
import logging

import numpy as np
import pytest
import zarr
from ct_samples import ball_hu, write_dicom
from store_samples import RECIPE, write_image

from flows import cli
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.identity import KEY_FILE, checked_key, prepared
from preprocessing.ingest import ingest
from preprocessing.manifest import case_rows, read_manifest
from preprocessing.sources.folder import FolderSource

SECRETS = ("Mustermann", "Erika", "MRN-4711", "19501224", "Kellerstr", "20190317", "Zugspitz")


@pytest.fixture
def folder(tmp_path):
    """A good scan, a DICOM series, a label without image and a broken file, all named after their patients."""
    root = tmp_path / "Zugspitz-Klinik"
    (root / "Mustermann_Erika").mkdir(parents=True)
    write_image(root / "Mustermann_Erika" / "MRN-4711_20190317.nrrd", ball_hu((37, 44, 50)))
    positions = [(0.0, 0.0, 2.0 * k) for k in range(24)]
    hidden = {"PatientName": "Mustermann^Erika", "PatientBirthDate": "19501224", "StudyDate": "20190317"}
    hidden |= {"PatientID": "MRN-4711", "PatientAddress": "Kellerstr. 9"}
    write_dicom(root / "MRN-4711_dicom", ball_hu(), positions, **hidden)
    (root / "Erika_19501224.nii.gz").write_bytes(gzip.compress(b"Mustermann Erika 19501224"))
    (root / "Kellerstr").mkdir()
    write_image(root / "Kellerstr" / "Mustermann_seg.nrrd", np.zeros((37, 44, 50), np.int16))
    return root


def leaks(data: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode().lower() in data.lower()]


def everything(lake) -> dict[str, bytes]:
    """Every object of the lake as it lies there, and every array, manifest row and name of it in plain text."""
    found = {key: key.encode() + lake.read(key) for key in lake.list()}
    for key in found:
        if key.endswith("/zarr.json"):
            node = zarr.open(lake.store(key.removesuffix("/zarr.json")), mode="r")
            found[key] += np.asarray(node[...]).tobytes() if isinstance(node, zarr.Array) else b""
        if key.endswith(".parquet"):
            import pandas as pd

            found[key] += pd.read_parquet(lake.local_path(key)).to_csv().encode()
    return found


def test_no_name_reaches_the_lake_the_log_or_the_screen(folder, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    caplog.set_level(logging.DEBUG, "preprocessing")
    lake = open_lake(str(tmp_path / "lake"))
    settings = Settings(home=tmp_path / "home", workers=1)
    source = FolderSource(path=str(folder), identified=True)
    summary = ingest(lake, RECIPE, [source], settings=settings)
    rows = case_rows(summary.manifest, lake, settings)
    assert sorted(row["status"] for row in rows) == ["quarantined", "quarantined", "sealed", "sealed"]
    assert {key: leaks(data) for key, data in everything(lake).items() if leaks(data)} == {}
    cli.run(["cases", "--lake", lake.url, "--json"])
    out, err = capfd.readouterr()
    assert leaks((json.dumps(rows) + out + err + caplog.text).encode()) == []
    table = next((tmp_path / "home" / "identified").iterdir())
    assert {path.stat().st_mode & 0o777 for path in (table, tmp_path / "home" / KEY_FILE)} == {0o600}
    assert json.loads(table.read_text()).keys() == {row["case"] for row in rows}
    again = ingest(lake, RECIPE, [source], settings=settings)
    assert (again.converted, again.manifest.number) == (0, summary.manifest.number)


def test_one_patient_has_one_hash_under_one_key_and_another_under_another(folder, tmp_path):
    def patients(home: str) -> list[str]:
        source = FolderSource(path=str(folder), identified=True)
        lake = open_lake(str(tmp_path / f"lake of {home}"))
        return [case.patient for case in prepared(source, lake, Settings(home=tmp_path / home)).cases()]

    assert patients("a") == patients("a")
    assert not set(patients("a")) & set(patients("b"))


def test_another_key_is_refused(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    checked_key(lake, Settings(home=tmp_path / "one"))
    assert "key_check" in json.loads(lake.read("lake.json"))
    with pytest.raises(UserError, match=r"was filled under a key that .* does not hold"):
        checked_key(lake, Settings(home=tmp_path / "two"))
    checked_key(open_lake(str(tmp_path / "other")), Settings(home=tmp_path / "two"))
    with pytest.raises(UserError, match="was filled under another key"):
        checked_key(lake, Settings(home=tmp_path / "two"))


def test_hiding_names_replaces_the_rows_that_showed_them(folder, tmp_path):
    lake, settings = open_lake(str(tmp_path / "lake")), Settings(home=tmp_path / "home", workers=1)
    ingest(lake, RECIPE, [FolderSource(path=str(folder / "Kellerstr"))], settings=settings)
    assert leaks(str(case_rows(read_manifest(lake, RECIPE), lake, settings)).encode())
    ingest(lake, RECIPE, [FolderSource(path=str(folder / "Kellerstr"), identified=True)], settings=settings)
    rows = case_rows(read_manifest(lake, RECIPE), lake, settings)
    assert len(rows) == 1
    assert leaks(str(rows).encode()) == []
