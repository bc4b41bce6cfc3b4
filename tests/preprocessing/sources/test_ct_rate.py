"""CT-RATE: a hub's tree and resolve endpoints behind a token; the first release on disk with its metadata table."""

import json
import sys
from hashlib import sha1, sha256
from urllib.parse import quote

import numpy as np
import pytest
from faulty_server import File
from miniatures import anatomy_of, brought, ingested, rows, scan, statuses

from infra.errors import UserError
from preprocessing.selection import Selection
from preprocessing.sources.ct_rate import FOLDERS, REPOSITORY
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case

TOKEN = "hf_of_the_test"
INTERCEPT = -8192


@pytest.fixture
def hub(server, monkeypatch):
    """The endpoint of a hub that the test fills."""
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


def publish(hub, files: dict[str, bytes]) -> None:
    """Files of the repository as the hub lists them (page by folder) and sends them (a redirect to its store)."""
    for folder in FOLDERS:
        tree = [entry(path, data) for path, data in files.items() if path.startswith(f"{folder}/")]
        where = f"/api/datasets/{REPOSITORY}/tree/main/{quote(folder, safe='')}"
        hub.files[where] = File(json.dumps(tree).encode(), token=TOKEN, content_type="application/json")
    for path, data in files.items():
        stored = f"/store/{sha256(data).hexdigest()}"
        hub.files[f"/datasets/{REPOSITORY}/resolve/main/{path}"] = File(b"", redirect=stored, token=TOKEN)
        hub.files[stored] = File(data, etag=f'"{sha256(data).hexdigest()}"')


def entry(path: str, data: bytes) -> dict[str, object]:
    lfs = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return {"type": "file", "path": path, "size": len(data), "oid": sha1(data).hexdigest(), "lfs": lfs}


def second_release() -> dict[str, bytes]:
    """Patient 1 with two reconstructions and a second scan, and masks; a validation patient without a mask."""
    chest, other = scan("chest", 0), scan("chest", 1)
    files = {f"dataset/train_fixed/train_1/train_1_a/train_1_a_{n}.nii.gz": chest.nifti() for n in (2, 1)}
    files["dataset/train_fixed/train_1/train_1_b/train_1_b_1.nii.gz"] = other.nifti()
    files["dataset/valid_fixed/valid_7/valid_7_a/valid_7_a_1.nii.gz"] = other.nifti()
    organs = np.where(chest.anatomy <= 117, chest.anatomy, 0).astype(np.uint8)
    masks = "dataset/ts_seg/ts_total/train_fixed/train_1/train_1_a"
    return files | {f"{masks}/train_1_a_{n}.nii.gz": chest.nifti(organs) for n in (1, 2)}


def first_release(spacing=None, slope: float = 1) -> dict[str, bytes]:
    """Stored values without a rescale, and the table that has it."""
    chest = scan("chest", 0)
    stored = np.round((chest.hu.astype(np.float32) - INTERCEPT) / slope).astype(np.float32)
    z, y, x = spacing or chest.geometry.spacing_mm
    table = (
        "VolumeName,Manufacturer,RescaleSlope,RescaleIntercept,XYSpacing,ZSpacing\n"
        f'train_1_a_1.nii.gz,"A, B",{slope},{INTERCEPT},"[{x}, {y}]",{z}\n'
    )
    return {
        "dataset/train/train_1/train_1_a/train_1_a_1.nii.gz": chest.nifti(stored),
        "dataset/metadata/train_metadata.csv": table.encode(),
    }


def bodies(server) -> list[str]:
    return [asked.path for asked in server.log if not asked.path.startswith("/api/")]


def test_one_reconstruction_of_a_patient_is_pulled_and_its_masks_are_all_organs(hub, lake, settings):
    publish(hub, second_release())
    ingested(lake, make_source("ct-rate"), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"train_1_a_1": "sealed", "valid_7_a_1": "sealed"}
    assert {row.patient for row in found.values()} == {"train_1", "valid_7"}
    assert (found["train_1_a_1"].anatomy, found["valid_7_a_1"].anatomy) == ("full", "none")
    assert anatomy_of(lake, found["train_1_a_1"]) >= {"heart", "lung_upper_lobe_left", "body"}
    assert {row.licence for row in found.values()} == {"CC BY-NC-SA 4.0"}
    assert TOKEN not in str(found)
    assert len([path for path in bodies(hub) if path.startswith("/store/")]) == 3

    asked = len(bodies(hub))
    again = ingested(lake, make_source("ct-rate"), settings)
    assert (again.converted, again.unchanged) == (0, 2)
    assert len(bodies(hub)) == asked, "only the listing is asked again"


def test_the_second_release_is_taken_as_it_is(hub, lake, settings):
    publish(hub, second_release())
    ingested(lake, make_source("ct-rate"), settings, selection=Selection(limit=1))
    (row,) = rows(lake).values()
    record = open_case(lake, row.key).record
    assert (record.audit.scale, record.audit.offset) == (1, 0)
    assert not any("table" in finding for finding in record.findings)
    assert abs(record.audit.air_peak_hu + 1000) < 60


@pytest.mark.parametrize("slope", [1, 0.5])
def test_the_first_release_is_rescaled_once_by_its_table(tmp_path, lake, settings, slope):
    brought(tmp_path / "given", first_release(slope=slope))
    brought(tmp_path / "same", {"chest.nii.gz": scan("chest", 0).nifti()})
    ingested(lake, make_source("ct-rate", archive=(str(tmp_path / "given"),)), settings)
    ingested(lake, make_source("folder", path=str(tmp_path / "same")), settings)
    first, same = (open_case(lake, rows(lake)[case].key) for case in ("train_1_a_1", "chest"))
    assert f"HU = {slope:g} x stored -8192, as the data set's table says" in first.record.findings
    assert (first.record.audit.scale, first.record.audit.offset) == (1, 0)
    assert np.abs(first.read_all("image").astype(int) - same.read_all("image")).max() <= 1


def test_the_first_release_is_refused_without_its_table_or_with_another_spacing(tmp_path, lake, settings):
    files = first_release(spacing=(1.5, 0.7, 0.7))
    brought(tmp_path / "spacing", files)
    brought(tmp_path / "table", {name: data for name, data in files.items() if not name.endswith(".csv")})
    for folder, reason in (("spacing", r"1.5 x 0.7 x 0.7"), ("table", "bring dataset/metadata/train_metadata.csv")):
        ingested(lake, make_source("ct-rate", archive=(str(tmp_path / folder),)), settings)
        assert reason in statuses(rows(lake).values())["train_1_a_1"]


def test_where_both_releases_are_brought_the_second_counts(tmp_path, lake):
    brought(tmp_path / "given", first_release() | second_release())
    cases = make_source("ct-rate", archive=(str(tmp_path / "given"),)).cases(lake)
    assert [case.id for case in cases] == ["train_1_a_1", "valid_7_a_1"]
    assert all("_fixed/" in case.image[0] for case in cases)
    assert not any(case.stated for case in cases)


def test_what_is_missing_to_ask_the_hub_is_said(hub, lake, monkeypatch):
    publish(hub, second_release())
    page = f"https://huggingface.co/datasets/{REPOSITORY}"
    monkeypatch.setenv("HF_TOKEN", "of somebody else")
    with pytest.raises(UserError, match=f"the token in HF_TOKEN is not allowed it; accept the terms at {page}"):
        make_source("ct-rate").cases(lake)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=f"set HF_TOKEN in the environment; accept the terms at {page}"):
        make_source("ct-rate").cases(lake)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(UserError, match="would show your token to the network"):
        make_source("ct-rate").cases(lake)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'meddiff\[huggingface\]'"):
        make_source("ct-rate").cases(lake)
