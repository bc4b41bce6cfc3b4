"""What the tests of public data sets share: a server on loopback, a lake, workers for the whole session."""

from collections.abc import Iterator
from functools import partial

import dask
import pytest
from distributed import LocalCluster
from faulty_server import FaultyServer
from idc_miniature import Commons

from infra.cluster import DASK_CONFIG
from infra.lake import Lake, open_lake
from infra.settings import Settings


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """An HTTP server with Range, ETags and faults on command."""
    faulty = FaultyServer()
    yield faulty
    faulty.stop()


@pytest.fixture
def lake(tmp_path) -> Lake:
    """A new lake in a folder."""
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def dask_address() -> Iterator[str]:
    """The address of a cluster in this process: what `ingest` does is what is tested, not how workers start."""
    cluster = partial(LocalCluster, n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with dask.config.set(DASK_CONFIG), cluster() as started:
        yield started.scheduler_address


@pytest.fixture
def settings(dask_address, tmp_path, monkeypatch) -> Settings:
    """Settings of a fresh state folder and the session's workers."""
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    return Settings(home=tmp_path / "home", dask_address=dask_address)


@pytest.fixture
def commons(s3_server, tmp_path, monkeypatch) -> Commons:
    """An S3 server with the bucket of the Imaging Data Commons, and an index of it."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Commons(s3_server, tmp_path)
