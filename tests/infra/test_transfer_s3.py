"""Buckets as source and as lake, against moto's S3 server and a proxy before it that fails on command."""

import hashlib
import random
import time

import boto3
import pytest
from faulty_server import HASTY, Fault, File, slow_down

from infra import partial, remote_s3
from infra.lake import open_lake
from infra.remote import Remote, TransferError
from infra.transfer import probe, pull

pytestmark = pytest.mark.server
DATA = random.Random(4).randbytes(700_000)
OTHER = random.Random(5).randbytes(700_000)
KEY = "raw/set/1/a.tar"
PIECE = 200_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(remote_s3, "PIECE", PIECE)


@pytest.fixture(scope="module")
def client(s3_server):
    return boto3.client(
        "s3", endpoint_url=s3_server, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


@pytest.fixture
def bucket(s3_bucket) -> str:
    return s3_bucket.removeprefix("s3://")


@pytest.fixture
def remote(client, bucket, proxy) -> Remote:
    """An object of 700,000 bytes, seen through the proxy."""
    client.put_object(Bucket=bucket, Key="set/a.tar", Body=DATA)
    return Remote(url=f"s3://{bucket}/set/a.tar", endpoint=proxy.url(""), md5=hashlib.md5(DATA).hexdigest())


@pytest.fixture(params=["folder", "bucket"])
def any_lake(request, tmp_path, s3_bucket):
    return open_lake(str(tmp_path / "lake") if request.param == "folder" else f"{s3_bucket}/lake")


def test_an_object_is_probed_by_its_head(remote, proxy):
    seen = probe(remote, policy=HASTY)
    assert seen.size == len(DATA)
    assert seen.etag == f'"{hashlib.md5(DATA).hexdigest()}"'
    assert [asked.path.split()[0] for asked in proxy.log] == ["HEAD"]


FAULTS = {
    "none": [],
    "SlowDown twice": [slow_down(), slow_down()],
    "500, then SlowDown in the middle": [Fault(status=500), Fault(), slow_down()],
    "dropped in the middle": [Fault(), Fault(keep=50_000)],
    "dropped again and again": [Fault(keep=1000)] * 3,
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_faults_that_pass_end_with_the_right_bytes(remote, proxy, any_lake, faults):
    proxy.script = list(faults)
    pulled = pull(any_lake, remote, KEY, policy=HASTY)
    assert any_lake.read(KEY) == DATA
    assert pulled.record.sha256 == hashlib.sha256(DATA).hexdigest()
    assert pulled.record.etag == f'"{hashlib.md5(DATA).hexdigest()}"'
    assert pulled.received == len(DATA)
    assert not proxy.script
    assert any_lake.list("raw") == [KEY, f"{KEY}.sha256"]


def test_a_stall_ends_and_the_rest_is_pulled(remote, proxy, lake):
    proxy.script = [Fault(), Fault(keep=50_000, stall_s=3)]
    assert pull(lake, remote, KEY, policy=HASTY.replace(read_timeout_s=1)).path.read_bytes() == DATA


def test_a_retry_after_is_waited_for_within_reason(remote, proxy, lake):
    proxy.script = [slow_down(), slow_down("1"), slow_down("86400")]
    started = time.monotonic()
    with pytest.raises(TransferError, match="reduce your request rate"):
        pull(lake, remote, KEY, policy=HASTY)
    assert 1 <= time.monotonic() - started < 60


def test_slow_down_that_lasts_is_an_error(remote, proxy, lake):
    proxy.script = [slow_down() for _ in range(20)]
    with pytest.raises(TransferError, match=r"Please reduce your request rate.*run again later"):
        pull(lake, remote, KEY, policy=HASTY)


def test_what_an_ended_pull_left_is_resumed(remote, proxy, lake):
    proxy.script = [Fault(), Fault()] + [slow_down() for _ in range(20)]
    with pytest.raises(TransferError):
        pull(lake, remote, KEY, policy=HASTY)
    proxy.script = []
    pulled = pull(lake, remote, KEY, policy=HASTY)
    assert pulled.received == len(DATA) - 2 * PIECE
    assert pulled.path.read_bytes() == DATA


def test_an_object_that_changes_midway_is_pulled_anew(remote, proxy, client, bucket, any_lake):
    change = Fault(before=lambda: client.put_object(Bucket=bucket, Key="set/a.tar", Body=OTHER))
    proxy.script = [Fault(), change]
    pull(any_lake, remote.replace(md5=""), KEY, policy=HASTY)
    assert any_lake.read(KEY) == OTHER


def test_an_object_that_changed_between_two_pulls_is_pulled_anew(remote, proxy, client, bucket, lake):
    proxy.script = [Fault(), Fault()] + [slow_down() for _ in range(20)]
    with pytest.raises(TransferError):
        pull(lake, remote, KEY, policy=HASTY)
    proxy.script = []
    client.put_object(Bucket=bucket, Key="set/a.tar", Body=OTHER)
    assert pull(lake, remote.replace(md5=""), KEY, policy=HASTY).path.read_bytes() == OTHER


def test_a_server_that_ignores_ranges_is_refused(remote, proxy, lake):
    proxy.script = [Fault(status=200, body=DATA, headers={"ETag": f'"{hashlib.md5(DATA).hexdigest()}"'})]
    with pytest.raises(TransferError, match="more than the part asked for"):
        pull(lake, remote, KEY, policy=HASTY)
    assert lake.list("raw") == []


def test_wrong_bytes_reach_no_lake(remote, any_lake, client, bucket):
    with pytest.raises(TransferError, match="declared is"):
        pull(any_lake, remote.replace(md5=hashlib.md5(OTHER).hexdigest()), KEY, policy=HASTY)
    assert any_lake.list("raw") == []
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_missing_object_and_a_missing_bucket_are_sentences(remote, lake):
    for url in (remote.url + "x", "s3://no-such-bucket-here/x"):
        with pytest.raises(TransferError, match=r"answers 404: it was moved or withdrawn"):
            pull(lake, remote.replace(url=url), KEY, policy=HASTY)


def test_anonymous_requests_are_not_signed(remote, proxy, client, bucket, lake, monkeypatch):
    client.put_object_acl(Bucket=bucket, Key="set/a.tar", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    pull(lake, remote.replace(anonymous=True), KEY, policy=HASTY)
    assert proxy.log
    assert not [asked for asked in proxy.log if "authorization" in asked.headers]


def test_requests_with_credentials_are_signed(remote, proxy, lake):
    pull(lake, remote, KEY, policy=HASTY)
    assert all(asked.headers["authorization"].startswith("AWS4-HMAC-SHA256") for asked in proxy.log)


def test_a_refused_object_says_whom_to_ask(remote, proxy, lake):
    proxy.methods = ("HEAD",)
    proxy.script = [Fault(status=403)]
    with pytest.raises(TransferError, match="answers 403: ask at https://host"):
        pull(lake, remote.replace(access="ask at https://host"), KEY, policy=HASTY)


def test_a_file_of_the_web_reaches_a_bucket_in_parts_through_a_broken_connection(
    server, client, bucket, s3_bucket, monkeypatch
):
    part = 5 * 2**20
    monkeypatch.setattr(partial, "PART", part)
    data = random.Random(6).randbytes(3 * part + 17)
    server.files["/a.tar"] = File(data)
    server.faults["/a.tar"] = [Fault(keep=7_000_000)]
    lake = open_lake(f"{s3_bucket}/lake")
    remote = Remote(url=server.url("/a.tar"), sha256=hashlib.sha256(data).hexdigest())
    pulled = pull(lake, remote, KEY, policy=HASTY)
    assert pulled.path is None
    assert pulled.received == len(data)
    assert client.head_object(Bucket=bucket, Key=f"lake/{KEY}")["ETag"].endswith('-3"')  # of three parts
    assert hashlib.sha256(lake.read(KEY)).hexdigest() == remote.sha256
    assert pull(lake, remote, KEY, policy=HASTY).received == 0


def test_of_two_pullers_into_a_bucket_one_wins_and_the_record_is_of_its_bytes(server, client, bucket, s3_bucket):
    lake = open_lake(f"{s3_bucket}/lake")
    server.files["/a.tar"] = File(OTHER)

    def the_other_is_first():
        server.files["/a.tar"] = File(DATA)
        pull(lake, Remote(url=server.url("/a.tar")), KEY, policy=HASTY)
        server.files["/a.tar"] = File(OTHER)

    server.faults["/a.tar"] = [Fault(before=the_other_is_first)]
    pulled = pull(lake, Remote(url=server.url("/a.tar")), KEY, policy=HASTY)
    assert lake.read(KEY) == DATA
    assert pulled.record.sha256 == hashlib.sha256(DATA).hexdigest()
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_a_dead_endpoint_is_an_error_soon(lake, bucket):
    remote = Remote(url=f"s3://{bucket}/x", endpoint="http://127.0.0.1:9")
    with pytest.raises(TransferError, match="run again later"):
        pull(lake, remote, KEY, policy=HASTY)
