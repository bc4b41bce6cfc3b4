"""What the doctor says of S3 servers: of one that has all, and of ones that lack something."""

import json
import uuid

import boto3
import pytest
from weak_s3 import weak_server

from infra.doctor.bucket import HASTY
from infra.doctor.storage import look_at_lake
from infra.lake import open_lake
from infra.settings import load_settings

pytestmark = pytest.mark.server

NEEDS = ("replacing", "listing", "Range requests", "exclusive creation", "multipart upload", "exclusive large objects",
         "deleting")  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with weak_server() as (address, weakness):
        yield address, weakness


@pytest.fixture
def weakness(server, monkeypatch):
    """A lake in a new bucket of a server whose weakness is to be told."""
    address, weakness = server
    weakness.get_well()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket=bucket)
    monkeypatch.setenv("MEDDIFF_LAKE", f"s3://{bucket}/lake")
    return weakness


def look():
    """status, found and remedy by what was looked at."""
    return {check.what: check for check in look_at_lake(load_settings())}


def stored():
    """Everything in the bucket, unfinished uploads too."""
    url = load_settings().lake_url
    client = boto3.client("s3", endpoint_url=load_settings().s3_endpoint, region_name="us-east-1")
    bucket = url.split("/")[2]
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return keys + [found["Key"] for found in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def not_ok(checks):
    return {what: check.status for what, check in checks.items() if check.status != "ok"}


def test_a_server_that_has_everything_is_ok_and_left_as_it_was(weakness):
    checks = look()
    assert list(checks) == ["lake", *(f"lake: {need}" for need in NEEDS)]
    assert not_ok(checks) == {}
    assert "none yet" in checks["lake"].found
    assert stored() == []


def test_a_lake_that_is_there_is_named_by_its_id(weakness):
    lake = open_lake()
    assert look()["lake"].found == f"{lake.url} at {lake.endpoint} (id {lake.id})"
    assert stored() == ["lake/lake.json"]


def test_a_server_without_conditions_is_for_a_single_writer(weakness):
    weakness.dropped = {"HTTP_IF_NONE_MATCH"}
    checks = look()
    assert not_ok(checks) == {"lake: exclusive creation": "warning", "lake: exclusive large objects": "warning"}
    for what in not_ok(checks):
        assert "If-None-Match is ignored" in checks[what].found
        assert "single writer only: run one ingest at a time" in checks[what].remedy
    assert stored() == []


def test_a_server_that_refuses_conditions_can_hold_no_lake(weakness):
    weakness.refuses = lambda asked: "HTTP_IF_NONE_MATCH" in asked
    checks = look()
    refused = ("exclusive creation", "multipart upload", "exclusive large objects")
    assert not_ok(checks) == {f"lake: {need}": "missing" for need in refused}
    assert "not implemented" in checks["lake: exclusive creation"].found
    assert "another S3 server" in checks["lake: exclusive creation"].remedy
    assert stored() == []


@pytest.mark.parametrize(("lacking", "told"), [("all", "bytes=3-6 of 100 gives"), ("suffix", "bytes=-4 of 100 gives")])
def test_a_server_without_ranges_can_hold_no_lake(weakness, lacking, told):
    weakness.dropped = {"HTTP_RANGE"} if lacking == "all" else set()
    weakness.suffix_ranges = False
    checks = look()
    assert not_ok(checks) == {"lake: Range requests": "missing"}
    assert told in checks["lake: Range requests"].found


def test_a_server_without_multipart_uploads_can_hold_no_lake(weakness):
    weakness.refuses = lambda asked: "uploads" in asked["QUERY_STRING"]
    assert not_ok(look()) == {"lake: multipart upload": "missing", "lake: exclusive large objects": "missing"}


def test_a_server_that_shows_what_was_replaced_can_hold_no_lake(weakness):
    weakness.keeps_first = True
    checks = look()
    assert checks["lake: replacing"].status == "missing"
    assert "read as it was before (b'first')" in checks["lake: replacing"].found


def test_a_listing_that_comes_late_is_for_a_single_writer(weakness):
    weakness.stale_listing = True
    checks = look()
    assert not_ok(checks) == {"lake: listing": "warning"}
    assert "single writer only" in checks["lake: listing"].remedy
    weakness.stale_listing = False
    assert stored() == []


def test_a_user_who_may_not_delete_is_told_so(weakness):
    weakness.refuses = lambda asked: asked["REQUEST_METHOD"] == "DELETE"
    weakness.refusal = "403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    checks = look()
    assert not_ok(checks) == {"lake: deleting": "warning"}
    assert "s3:DeleteObject" in checks["lake: deleting"].remedy


def test_a_user_who_may_not_write_is_told_which_rights_are_missing(weakness):
    weakness.refuses = lambda asked: asked["REQUEST_METHOD"] == "PUT"
    weakness.refusal = "403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    checks = look()
    assert not_ok(checks) == {"lake": "missing"}
    assert "AWS_ACCESS_KEY_ID" in checks["lake"].remedy


def test_a_bucket_that_is_not_there_is_to_be_made(weakness, monkeypatch):
    monkeypatch.setenv("MEDDIFF_LAKE", "s3://nobodys-bucket/lake")
    assert look()["lake"].remedy == "make the bucket nobodys-bucket first"


def test_a_newer_lake_is_refused_by_name(weakness):
    lake = open_lake()
    lake.write("lake.json", json.dumps({"format": 99, "id": lake.id}).encode())
    checks = look()
    assert checks["lake"].status == "missing"
    assert "format 99" in checks["lake"].found


def test_a_server_that_is_away_is_one_sentence(weakness, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    checks = look()
    assert list(checks) == ["lake"]
    assert checks["lake"].status == "missing"
    assert "http://127.0.0.1:9" in checks["lake"].remedy


def test_a_server_that_keeps_silent_is_given_up(weakness, monkeypatch):
    monkeypatch.setitem(HASTY, "read_timeout", 0.3)
    weakness.answers.clear()
    checks = look()
    weakness.answers.set()
    assert not_ok(checks) == {"lake": "missing"}
    assert "timeout" in checks["lake"].found
    assert "AWS_ENDPOINT_URL" in checks["lake"].remedy
