"""What the transfer tests share: faulty servers on loopback and an empty lake."""

import pytest
from faulty_server import FaultyProxy, FaultyServer

from infra.lake import Lake, open_lake


@pytest.fixture
def server():
    """An HTTP server that fails on command."""
    faulty = FaultyServer()
    yield faulty
    faulty.stop()


@pytest.fixture(scope="session")
def proxy_server(s3_server):
    """The one server behind `proxy`: every other address would cost another S3 client."""
    faulty = FaultyProxy(s3_server)
    yield faulty
    faulty.stop()


@pytest.fixture
def proxy(proxy_server, s3_bucket):
    """A server that passes requests on to the S3 server, or fails on command."""
    proxy_server.script, proxy_server.log, proxy_server.methods = [], [], ("GET",)
    return proxy_server


@pytest.fixture
def lake(tmp_path) -> Lake:
    """A new lake in a folder."""
    return open_lake(str(tmp_path / "lake"))
