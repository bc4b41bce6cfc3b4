"""A lake with a manifest but without volumes, and one Prefect server for all flow tests."""

import pytest
from flow_samples import phantom_rows

from infra.lake import open_lake
from preprocessing.manifest import commit
from preprocessing.recipe import demo


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


@pytest.fixture
def ingested(lake):
    """The lake after an ingest of six phantom patients."""
    refused = phantom_rows()[0].replace(case="odd", status="quarantined", reason="it is an MR image", key="", seal="")
    commit(lake, demo(), {"phantom": phantom_rows(), "folder": [refused.replace(source="folder", version="v")]})
    return lake
