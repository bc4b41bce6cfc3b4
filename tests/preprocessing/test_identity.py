"""Identity: a folder of identified patients leaves no name in the lake, in a log or on the screen."""

import gzip
import json
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr
from ct_samples import ball_hu, write_dicom
from fuzz_files import write_healthy
from fuzz_headers import METAIMAGE_FIELDS, NRRD_FIELDS, craft, with_element
from PIL import Image
from store_samples import RECIPE, write_image

from flows import cli
from flows.params import SourceSpec
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_labels, read_image
from preprocessing.identity import KEY_FILE, checked_key, folder_behind, prepared
from preprocessing.ingest import ingest
from preprocessing.manifest import case_rows, read_manifest
from preprocessing.sources.folder import FolderSource

SECRETS = ("Mustermann", "Erika", "MRN-4711", "19501224", "Kellerstr", "20190317", "Zugspitz")


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    """A good scan, a DICOM series, a detached scan, a label without image and a broken file, named after patients."""
    root = tmp_path / "Zugspitz-Klinik"
    (root / "Mustermann_Erika").mkdir(parents=True)
    write_image(root / "Mustermann_Erika" / "MRN-4711_20190317.nrrd", ball_hu((37, 44, 50)))
    positions = [(0.0, 0.0, 2.0 * k) for k in range(24)]
    hidden = {"PatientName": "Mustermann^Erika", "PatientBirthDate": "19501224", "StudyDate": "20190317"}
    hidden |= {"PatientID": "MRN-4711", "PatientAddress": "Kellerstr. 9"}
    write_dicom(root / "MRN-4711_dicom", ball_hu(), positions, **hidden)
    (root / "Erika_19501224.nii.gz").write_bytes(gzip.compress(b"Mustermann Erika 19501224"))
    detached(root / "19501224", "Mustermann_Erika/MRN-4711.raw", ball_hu((37, 44, 50)))
    (root / "Kellerstr").mkdir()
    write_image(root / "Kellerstr" / "Mustermann_seg.nrrd", np.zeros((37, 44, 50), np.int16))
    return root


def detached(folder: Path, voxels: str, array: np.ndarray) -> Path:
    """A MetaImage header whose voxels lie in a folder below it."""
    (folder / voxels).parent.mkdir(parents=True)
    (folder / voxels).write_bytes(array.tobytes())
    sizes = " ".join(map(str, array.shape[::-1]))
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = {sizes}\nElementSpacing = 4 4 4\n"
    kind = {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}[array.dtype.name]
    (folder / "ct.mhd").write_text(f"{header}ElementType = {kind}\nElementDataFile = {voxels}\n")
    return folder / "ct.mhd"


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
    assert sorted(row["status"] for row in rows) == ["quarantined"] * 2 + ["sealed"] * 3
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


RUN = "import sys; from flows import cli; sys.exit(cli.run(sys.argv[1:]))"


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "MEDDIFF_HOME": str(home), "MEDDIFF_LAKE": "", "MEDDIFF_WORKERS": "1"}
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def words_of(file: Path) -> bytes:
    """A file's bytes; of a picture its text chunks as well, of a database every row (with those of its journal)."""
    found = file.read_bytes()
    if file.suffix == ".png":
        found += str(Image.open(file).info).encode()
    if file.suffix == ".db":
        with closing(sqlite3.connect(file)) as database:
            found += "\n".join(database.iterdump()).encode()
    return found


@pytest.mark.slow
@pytest.mark.server
def test_no_name_reaches_prefect_or_the_state_folder(folder, tmp_path):
    """But for the private tables, which say what the hashes stand for."""
    home = tmp_path / "home"
    done = command(home, "ingest", "folder", "--path", str(folder), "--identified", "--recipe", "demo")
    assert done.returncode == 0, done.stderr
    assert "3 cases sealed, 2 quarantined" in done.stdout
    files = [path for path in home.rglob("*") if path.is_file() and path.parent.name != "identified"]
    files = [path for path in files if path.suffix not in (".db-wal", ".db-shm")]
    assert {"prefect.db", "lake.json", "folder.png"} <= {path.name for path in files}
    assert {str(path): leaks(words_of(path)) for path in files if leaks(words_of(path))} == {}
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        ((parameters,),) = database.execute("select parameters from flow_run").fetchall()
    (stated,) = json.loads(parameters)["params"]["sources"]
    hidden = stated["options"]["path"]
    assert hidden.startswith("folder:")
    assert f"Prefect knows {folder} as path {hidden}" in done.stderr.replace("\n", "")
    assert folder_behind(hidden, Settings(home=home)) == str(folder)


def test_a_folder_that_cannot_be_listed_is_not_named_either(tmp_path):
    lake, settings = open_lake(str(tmp_path / "lake")), Settings(home=tmp_path / "home")
    (tmp_path / "Mustermann").mkdir()
    for place in ("Mustermann", "Erika"):
        with pytest.raises(UserError) as error:
            prepared(FolderSource(path=str(tmp_path / place), identified=True), lake, settings).cases()
        assert leaks(str(error.value).encode()) == []


def test_a_flow_is_given_an_identified_folder_by_its_id(tmp_path):
    lake, settings = open_lake(str(tmp_path / "lake")), Settings(home=tmp_path / "home")
    open_ = SourceSpec(name="folder", options={"path": str(tmp_path), "identified": True})
    with pytest.raises(UserError, match=r"is given to a flow as path folder:<id>, since Prefect keeps parameters"):
        open_.require_hiding()
    hidden = open_.in_hiding(lake, settings)
    hidden.require_hiding()
    assert str(tmp_path) not in str(hidden)
    assert folder_behind(str(hidden.options["path"]), settings) == str(tmp_path)
    with pytest.raises(
        UserError, match=r"does not know folder:.*; run `meddiff ingest folder --path DIR --identified`"
    ):
        folder_behind(str(hidden.options["path"]), Settings(home=tmp_path / "elsewhere"))
    assert SourceSpec(name="folder", options={"path": "/data"}).in_hiding(lake, settings).options["path"] == "/data"


def test_two_headers_that_call_their_voxels_alike_keep_their_own(tmp_path):
    hu, liver = ball_hu((37, 44, 50)), np.zeros((37, 44, 50), np.uint8)
    liver[10:20, 12:30, 12:30] = 1
    detached(tmp_path / "scans" / "p", "voxels/a.raw", hu)
    label = detached(tmp_path / "scans" / "p" / "segmentations", "voxels/a.raw", liver)
    label.rename(label.with_name("liver.mhd"))
    lake, settings = open_lake(str(tmp_path / "lake")), Settings(home=tmp_path / "home")
    source = prepared(FolderSource(path=str(tmp_path / "scans"), identified=True), lake, settings)
    (case,) = source.cases()
    (tmp_path / "scratch").mkdir()
    volume = read_image(fetched := source.fetch(case, lake, tmp_path / "scratch"))
    anatomy, _, _ = decode_labels(fetched, volume.geometry)
    assert np.array_equal(volume.image, hu)
    assert np.array_equal(anatomy > 0, liver > 0)


def spoilt(folder: Path) -> None:
    """One file for each field of each format's header that could hold a name, with a name in it."""
    for kind, fields in (
        ("nrrd", NRRD_FIELDS),
        ("mha", METAIMAGE_FIELDS),
        ("nhdr", NRRD_FIELDS),
        ("mhd", METAIMAGE_FIELDS),
    ):
        healthy = {path: path.read_bytes() for path in write_healthy(folder / "healthy" / kind, kind)}
        for n, field in enumerate(fields):
            place = folder / kind / str(n)
            place.mkdir(parents=True)
            for path, data in {**healthy, **craft(healthy, kind, {field: "Mustermann Erika"})}.items():
                (place / path.name).write_bytes(data)
    slices = write_healthy(folder / "healthy" / "dcm", "dcm")
    texts = ("Modality", "ImageType", "RescaleSlope", "RescaleType", "PixelSpacing", "ImagePositionPatient", "KVP",
             "PhotometricInterpretation", "NumberOfFrames", "SeriesNumber", "SeriesDescription", "SliceThickness",
             "SOPClassUID", "ConvolutionKernel", "StudyDescription", "AcquisitionNumber")  # fmt: skip
    for n, keyword in enumerate(texts):
        place = folder / "dcm" / str(n)
        place.mkdir(parents=True)
        for path in slices:
            (place / path.name).write_bytes(with_element(path.read_bytes(), keyword, "MUSTERMANN"))
    for name, content in (("labels", {"1": "Mustermann"}), ("modality", {"1": "liver"})):
        tree = folder / name
        for part in ("imagesTr/a_0000.nrrd", "labelsTr/a.nrrd"):
            (tree / part).parent.mkdir(parents=True)
            (tree / part).write_bytes((folder / "healthy" / "nrrd" / "ct.nrrd").read_bytes())
        modality = {"0": "Mustermann MR" if name == "modality" else "CT"}
        (tree / "dataset.json").write_text(json.dumps({"labels": content, "modality": modality}))


def test_what_a_message_quotes_of_a_header_is_hidden(tmp_path):
    folder = tmp_path / "scans"
    spoilt(folder)
    lake, settings = open_lake(str(tmp_path / "lake")), Settings(home=tmp_path / "home")
    source = prepared(FolderSource(path=str(folder), identified=True), lake, settings)
    said = {}
    for n, case in enumerate(source.cases()):
        (tmp_path / str(n)).mkdir()
        try:
            fetched = source.fetch(case, lake, tmp_path / str(n))
            volume = read_image(fetched)
            texts = [*volume.findings, *decode_labels(fetched, volume.geometry)[2]]
            said[case.origin[0]] = [source.finding(text, case) for text in texts]
        except CaseError as error:
            said[case.origin[0]] = [source.reason(str(error), case)]
    assert len(said) > 60
    assert sum("(hidden)" in str(texts) for texts in said.values()) > 20
    assert {path: texts for path, texts in said.items() if leaks(str(texts).encode())} == {}
