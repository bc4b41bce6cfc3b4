"""HTTP against a server that fails on command: the right bytes or an error with a name, never wrong bytes."""

import hashlib
import logging
import random
import time
from email.utils import formatdate

import pytest
from faulty_server import HASTY, IMPATIENT, Fault, FaultyServer, File

from infra.errors import UserError
from infra.remote import Remote, TransferError, TransferPolicy, Version, redacted
from infra.transfer import probe, pull

DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
KEY = "raw/set/1/a.tar"
PATH = "/a.tar"


def declared(server, data=DATA, **fields) -> Remote:
    return Remote(url=server.url(PATH), md5=hashlib.md5(data).hexdigest(), **fields)


def undeclared(server) -> Remote:
    return Remote(url=server.url(PATH))


def pull_from(lake, remote, policy=HASTY):
    return pull(lake, remote, KEY, policy=policy)


def in_flight(lake) -> list[str]:
    return sorted(path.name for path in (lake.local_path("raw")).rglob("*.partial"))


PASSING = {
    "dropped once": [Fault(keep=100_000)],
    "dropped five times, each time further": [Fault(keep=40_000)] * 5,
    "dropped before the first byte": [Fault(keep=0)],
    "503 twice": [Fault(status=503)] * 2,
    "500 after a drop": [Fault(keep=9_000), Fault(status=500)],
    "429": [Fault(status=429, headers={"Retry-After": "0"})],
    "a stall": [Fault(keep=50_000, stall_s=0.8)],
    "a stall before the headers": [Fault(before=lambda: time.sleep(0.8))],
    "a chunked body cut off": [Fault(chunked=True, keep=60_000)],
    "a length that is too long": [Fault(length=400_000)],
    "a 200 to a Range request": [Fault(keep=100_000), Fault(ignore_range=True)],
    "another part than the one asked for": [Fault(keep=100_000), Fault(shift=7)],
    "a 416 to a Range request": [Fault(keep=100_000), Fault(status=416)],
}


@pytest.mark.parametrize("knows", ["checksum", "nothing"])
@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_ends_with_the_right_bytes(server, lake, faults, knows):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = list(faults)
    pulled = pull_from(lake, declared(server) if knows == "checksum" else undeclared(server), IMPATIENT)
    assert pulled.path.read_bytes() == DATA
    assert not server.faults[PATH]
    assert in_flight(lake) == []


LASTING = {
    "truncated every time": (Fault(keep=1000, ignore_range=True), "run again to resume"),
    "always 503": (Fault(status=503), "answers 503"),
    "never a byte": (Fault(keep=0, stall_s=0.6), "check the network and run again"),
    "a length that is too short": (Fault(length=200_000), "declared is"),
    "a body that goes on, without a length": (Fault(chunked=True, extra=b"more"), "declared is"),
    "compressed on the way": (Fault(compress=True), "declared is"),
    "wrong bytes of the right length": (Fault(status=200, body=OTHER), "declared is"),
    "a page instead of the file": (
        Fault(status=200, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>Log in</html>"),
        "page of HTML",
    ),
    "an empty file": (Fault(status=200), "is empty"),
    "401": (Fault(status=401), "it wants an account; ask for access on the page of the dataset"),
    "403": (Fault(status=403), "it wants an account"),
    "404": (Fault(status=404), "moved or withdrawn"),
    "418": (Fault(status=418), "answers 418"),
    "a Retry-After that is too long": (Fault(status=503, headers={"Retry-After": "86400"}), "come back in 86400 s"),
    "redirects in a circle": (Fault(status=302, headers={"Location": PATH}), "leads nowhere"),
    "a redirect away from http": (Fault(status=302, headers={"Location": "ftp://host/x"}), "not http"),
}


@pytest.mark.parametrize(("fault", "sentence"), LASTING.values(), ids=LASTING)
def test_a_fault_that_lasts_is_an_error_that_names_the_url(server, lake, fault, sentence):
    server.files[PATH] = File(DATA)
    server.always[PATH] = fault
    with pytest.raises(TransferError, match=sentence) as error:
        pull_from(lake, declared(server), IMPATIENT)
    assert server.url(PATH) in str(error.value)
    assert lake.list("raw") == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418])
def test_what_the_client_did_wrong_is_not_tried_again(server, lake, status):
    server.always[PATH] = Fault(status=status)
    with pytest.raises(TransferError):
        pull_from(lake, undeclared(server))
    assert len(server.log) == 1


def test_a_dropped_connection_is_continued_not_repeated(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(keep=100_000)]
    pulled = pull_from(lake, undeclared(server))
    assert [asked.range for asked in server.log] == ["", "bytes=100000-"]
    assert server.log[1].headers["if-range"] == '"v1"'
    assert pulled.received == len(DATA)


def test_retry_after_is_waited_for(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(status=429, headers={"Retry-After": "1"})]
    started = time.monotonic()
    pull_from(lake, undeclared(server))
    assert time.monotonic() - started >= 1


def test_retry_after_may_be_a_date(server, lake):
    server.always[PATH] = Fault(status=503, headers={"Retry-After": formatdate(time.time() + 3600, usegmt=True)})
    with pytest.raises(TransferError, match=r"asks to come back in 3\d\d\d s"):
        pull_from(lake, undeclared(server))


def change_to_other(server, **fields):
    return Fault(before=lambda: server.files.update({PATH: File(OTHER, **fields)}))


@pytest.mark.parametrize("ignores", [False, True], ids=["heeds If-Range", "ignores If-Range"])
def test_a_file_that_changes_between_two_connections_is_pulled_anew(server, lake, ignores):
    server.files[PATH] = File(DATA)
    changed = change_to_other(server, etag='"v2"')
    changed.ignore_if_range = ignores
    server.faults[PATH] = [Fault(keep=100_000), changed]
    pulled = pull_from(lake, undeclared(server))
    assert pulled.path.read_bytes() == OTHER
    assert pulled.record.etag == '"v2"'


def test_a_file_that_changes_is_told_by_its_date(server, lake):
    now = time.time()
    server.files[PATH] = File(DATA, etag="", modified=now - 100)
    server.faults[PATH] = [Fault(keep=100_000), change_to_other(server, etag="", modified=now - 50)]
    assert pull_from(lake, undeclared(server)).path.read_bytes() == OTHER
    assert server.log[1].range == "bytes=100000-"


@pytest.mark.parametrize(
    "validator",
    [{"etag": ""}, {"etag": 'W/"v1"'}, {"etag": "", "modified": time.time() + 3600}],
    ids=["none", "a weak ETag", "the date of this second"],
)
def test_without_a_validator_to_rely_on_nothing_is_spliced(server, lake, validator):
    server.files[PATH] = File(DATA, **validator)
    server.faults[PATH] = [Fault(keep=100_000), change_to_other(server, **validator)]
    assert pull_from(lake, undeclared(server)).path.read_bytes() == OTHER
    assert [asked.range for asked in server.log] == ["", ""]


def test_wrong_bytes_are_pulled_once_more_and_then_named_with_both_checksums(server, lake):
    server.files[PATH] = File(OTHER)
    with pytest.raises(TransferError) as error:
        pull_from(lake, declared(server))
    assert hashlib.md5(DATA).hexdigest() in str(error.value)
    assert hashlib.md5(OTHER).hexdigest() in str(error.value)
    assert [asked.range for asked in server.log] == ["", ""]
    assert in_flight(lake) == []


def test_bytes_damaged_once_end_right(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(status=200, body=OTHER, headers={"ETag": '"v1"'})]
    remote = Remote(url=server.url(PATH), sha256=hashlib.sha256(DATA).hexdigest())
    assert pull_from(lake, remote).path.read_bytes() == DATA


def test_a_size_that_is_not_the_declared_one_is_told_before_a_byte_is_kept(server, lake):
    server.files[PATH] = File(DATA)
    with pytest.raises(TransferError, match="has 300000 bytes, 299999 are declared"):
        pull_from(lake, Remote(url=server.url(PATH), size=299_999))
    assert in_flight(lake) == []


def test_a_body_longer_than_declared_is_wrong(server, lake):
    server.files[PATH] = File(DATA)
    server.always[PATH] = Fault(chunked=True, extra=b"more")
    with pytest.raises(TransferError, match="sends more than the 300000 bytes"):
        pull_from(lake, Remote(url=server.url(PATH), size=300_000))


def test_compression_on_the_way_is_refused_where_no_checksum_can_tell(server, lake):
    server.files[PATH] = File(DATA)
    server.always[PATH] = Fault(compress=True)
    with pytest.raises(TransferError, match="Content-Encoding gzip though identity was asked for"):
        pull_from(lake, undeclared(server))
    assert server.log[0].headers["accept-encoding"] == "identity"


def test_a_gzip_file_that_is_labelled_as_compressed_keeps_its_bytes(server, lake):
    server.files[PATH] = File(DATA)
    server.always[PATH] = Fault(headers={"Content-Encoding": "x-gzip"})
    assert pull_from(lake, declared(server)).path.read_bytes() == DATA


def test_an_answer_whose_end_cannot_be_told_is_refused(server, lake):
    server.files[PATH] = File(DATA)
    server.always[PATH] = Fault(no_length=True, keep=1000)
    with pytest.raises(TransferError, match="comes without a length"):
        pull_from(lake, undeclared(server))
    with pytest.raises(TransferError, match="declared is"):
        pull_from(lake, declared(server))


def test_a_chunked_answer_ends_where_it_says(server, lake):
    server.files[PATH] = File(DATA)
    server.always[PATH] = Fault(chunked=True)
    assert pull_from(lake, undeclared(server)).path.read_bytes() == DATA


def test_a_page_is_a_file_where_a_page_is_asked_for(server, lake):
    server.files["/index.html"] = File(b"<html>", content_type="text/html")
    remote = Remote(url=server.url("/index.html"))
    assert pull(lake, remote, "raw/set/1/index.html", policy=HASTY).path.read_bytes() == b"<html>"


def test_a_server_that_is_not_there_is_an_error(lake):
    with pytest.raises(TransferError, match="check the network"):
        pull_from(lake, Remote(url="http://127.0.0.1:9/a.tar"))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_probe_costs_one_small_request(server, ranges):
    server.files[PATH] = File(DATA, modified=0, ranges=ranges)
    seen = probe(undeclared(server), policy=HASTY)
    assert seen == Version(etag='"v1"', size=300_000, modified="Thu, 01 Jan 1970 00:00:00 GMT")
    assert [asked.range for asked in server.log] == ["bytes=0-0"]
    if ranges:
        assert server.log[0].sent == 1


def test_a_probe_sees_the_change(server):
    server.files[PATH] = File(DATA)
    first = probe(undeclared(server), policy=HASTY)
    assert first.matches(probe(undeclared(server), policy=HASTY))
    server.files[PATH] = File(OTHER, etag='"v2"')
    assert not first.matches(probe(undeclared(server), policy=HASTY))


def test_a_probe_of_an_empty_file_says_zero(server):
    server.files[PATH] = File(b"")
    assert probe(undeclared(server), policy=HASTY).size == 0


def test_what_changed_since_it_was_listed_is_not_stored_under_the_old_version(server, lake):
    server.files[PATH] = File(DATA)
    listed = probe(undeclared(server), policy=HASTY)
    server.files[PATH] = File(OTHER, etag='"v2"')
    with pytest.raises(TransferError, match="changed since it was listed"):
        pull_from(lake, undeclared(server).replace(version=listed))
    assert lake.list("raw") == []


@pytest.fixture
def secret(monkeypatch) -> str:
    monkeypatch.setenv("SET_TOKEN", "s3cr3t-t0ken\n")
    return "s3cr3t-t0ken"


def test_a_token_is_sent_and_not_carried_to_the_host_of_a_redirect(server, lake, secret):
    elsewhere = FaultyServer()
    elsewhere.files["/cdn"] = File(DATA)
    server.files[PATH] = File(b"", token=secret, redirect=elsewhere.url("/cdn?Signature=abc"))
    try:
        pulled = pull_from(lake, declared(server, token_env="SET_TOKEN"))
    finally:
        elsewhere.stop()
    assert pulled.path.read_bytes() == DATA
    assert server.log[0].headers["authorization"] == f"Bearer {secret}"
    assert "authorization" not in elsewhere.log[0].headers


def test_no_secret_is_shown(server, lake, secret, caplog):
    caplog.set_level(logging.DEBUG)
    server.always[PATH] = Fault(status=403)
    remote = Remote(
        url=server.url(PATH) + "?X-Amz-Signature=deadbeef", token_env="SET_TOKEN", access="ask at https://host/set"
    )
    with pytest.raises(
        TransferError, match="the token in SET_TOKEN is not allowed it; ask at https://host/set"
    ) as error:
        pull_from(lake, remote)
    server.always.clear()
    server.faults[PATH] = [Fault(keep=5), Fault(status=503)]
    server.files[PATH] = File(DATA)
    record = pull_from(lake, remote).record
    assert server.log[-1].path.endswith("?X-Amz-Signature=deadbeef")
    shown = f"{error.value} {error.value.__cause__} {remote!r} {remote} {record!r} {caplog.text}"
    shown += lake.read(f"{KEY}.sha256").decode()
    assert secret not in shown
    assert "deadbeef" not in shown


@pytest.mark.parametrize(
    ("token", "url", "sentence"),
    [
        (None, "https://127.0.0.1:9/x", "set SET_TOKEN in the environment"),
        ("two\nlines", "https://127.0.0.1:9/x", "characters that no header may hold"),
        ("fine", "http://example.org/x", "would show the token of SET_TOKEN to the network"),
    ],
)
def test_a_token_that_cannot_be_sent_is_a_sentence(lake, monkeypatch, token, url, sentence):
    monkeypatch.delenv("SET_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("SET_TOKEN", token)
    with pytest.raises(UserError, match=sentence) as error:
        pull_from(lake, Remote(url=url, token_env="SET_TOKEN"))
    assert "lines" not in str(error.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "relative/path", "https://user:secret@host/x"])
def test_a_url_that_cannot_be_pulled_is_refused_without_showing_its_password(url):
    with pytest.raises(ValueError, match=r"url of https|holds a password") as error:
        Remote(url=url)
    assert "secret" not in str(error.value)


def test_redacted_urls_keep_what_names_the_file():
    assert redacted("https://u:p@host:1/a/b.zip?sig=1#x") == "https://host:1/a/b.zip?…"
    assert redacted("/data/a?b.zip") == "/data/a?b.zip"


def test_a_policy_gives_up_after_its_attempts(server, lake):
    server.always[PATH] = Fault(status=502)
    with pytest.raises(TransferError, match="502"):
        pull_from(lake, undeclared(server), TransferPolicy(attempts=2, first_wait_s=0, longest_wait_s=0))
    assert len(server.log) == 2
