"""A lake with a manifest but without volumes, and one Prefect server for all flow tests."""

import pytest

from infra.lake import open_lake
from preprocessing.manifest import ManifestRow, commit
from preprocessing.recipe import demo
from preprocessing.regions import REGIONS
from preprocessing.sources.phantom import PhantomSource

PATIENTS = 6


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Every test has its own state folder and no server of anybody else's."""
    for name in ("MEDDIFF_LAKE", "MLFLOW_TRACKING_URI", "MEDDIFF_DASK_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDDIFF_LAKE", "")


@pytest.fixture
def lake(tmp_path):
    return open_lake(str(tmp_path / "home" / "lake"))


def phantom_rows(patients=PATIENTS):
    """What an ingest of the phantom would commit, but for the stored volumes."""
    return [
        ManifestRow(
            source="phantom",
            case=case.id,
            patient=case.patient,
            status="sealed",
            input="0" * 16,
            key=f"ct/x/phantom/{case.id}/{'0' * 16}.zarr",
            seal="1" * 64,
            regions=REGIONS,
            anatomy="full",
            lesion=True,
            licence="Apache-2.0",
            version=case.version,
        )
        for case in PhantomSource(patients=patients).cases()
    ]


@pytest.fixture
def ingested(lake):
    """The lake after an ingest of six phantom patients."""
    refused = phantom_rows()[0].replace(case="odd", status="quarantined", reason="it is an MR image", key="", seal="")
    commit(lake, demo(), {"phantom": phantom_rows(), "folder": [refused.replace(source="folder", version="v")]})
    return lake
