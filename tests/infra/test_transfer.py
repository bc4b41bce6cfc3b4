"""Files come into raw/ whole, once, beside their checksums; what is killed is resumed; two pullers do no harm."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_server import HASTY, Fault, File
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra import partial
from infra.errors import UserError
from infra.lake import open_lake
from infra.remote import Remote, TransferError, Version
from infra.transfer import probe, pull, pull_many, raw_key

DATA = random.Random(3).randbytes(400_000)
KEY = "raw/set/1/a.tar"
PATH = "/a.tar"


def names(lake) -> list[str]:
    return sorted(path.name for path in Path(lake.url, "raw").rglob("*") if path.is_file())


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_a_pulled_file_lies_beside_its_checksums(server, lake):
    server.files[PATH] = File(DATA)
    pulled = pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert (pulled.key, pulled.path, pulled.received) == (KEY, Path(lake.url, KEY), len(DATA))
    assert json.loads(lake.read(f"{KEY}.sha256")) == {
        "url": server.url(PATH),
        "etag": '"v1"',
        "size": len(DATA),
        "md5": hashlib.md5(DATA).hexdigest(),
        "sha256": hashlib.sha256(DATA).hexdigest(),
    }
    assert names(lake) == ["a.tar", "a.tar.sha256"]


def test_a_second_pull_asks_nothing_and_moves_nothing(server, lake):
    server.files[PATH] = File(DATA)
    remote = Remote(url=server.url(PATH))
    first = pull(lake, remote, KEY, policy=HASTY)
    second = pull(lake, remote, KEY, policy=HASTY)
    assert second.record == first.record
    assert second.received == 0
    assert len(server.log) == 1


def test_what_is_in_raw_is_never_overwritten(server, lake):
    server.files[PATH] = File(DATA)
    pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    with pytest.raises(TransferError, match=r"holds another file .*pull the new one under a new version"):
        pull(lake, Remote(url=server.url(PATH), md5="0" * 32), KEY, policy=HASTY)
    assert lake.read(KEY) == DATA


def test_a_file_whose_record_was_lost_gets_it_anew_from_its_bytes(server, lake):
    server.files[PATH] = File(DATA)
    remote = Remote(url=server.url(PATH))
    first = pull(lake, remote, KEY, policy=HASTY).record
    lake.delete(f"{KEY}.sha256")
    again = pull(lake, remote, KEY, policy=HASTY)
    assert again.record == first.replace(etag="")
    assert again.received == 0


def test_a_record_that_is_none_is_told(server, lake):
    server.files[PATH] = File(DATA)
    remote = Remote(url=server.url(PATH))
    pull(lake, remote, KEY, policy=HASTY)
    lake.write(f"{KEY}.sha256", b"d41d8cd9")
    with pytest.raises(UserError, match=r"a\.tar\.sha256 is no record of checksums; delete it"):
        pull(lake, remote, KEY, policy=HASTY)


def test_a_file_that_was_cut_is_told(server, lake):
    server.files[PATH] = File(DATA)
    remote = Remote(url=server.url(PATH))
    path = pull(lake, remote, KEY, policy=HASTY).path
    os.truncate(path, 10)
    with pytest.raises(TransferError, match="no longer has its 400000 bytes; delete it"):
        pull(lake, remote, KEY, policy=HASTY)


CHILD = """
import os, sys
from infra.lake import open_lake
from infra.remote import Remote
from infra.transfer import pull
lake, url, key, crowd = *sys.argv[1:4], int(sys.argv[4])
while crowd > 1 and os.fork():
    crowd -= 1
pull(open_lake(lake), Remote(url=url), key)
"""


def start_pullers(lake, url, count) -> subprocess.Popen:
    """Processes that pull the same file; in a session of their own."""
    command = [sys.executable, "-c", CHILD, lake.url, url, KEY, str(count)]
    return subprocess.Popen(command, cwd=Path.cwd(), start_new_session=True)


def test_a_killed_pull_is_resumed_and_only_the_rest_is_asked_for(server, lake):
    gate = threading.Event()
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(keep=250_000, gate=gate)]
    child = start_pullers(lake, server.url(PATH), 1)
    path = Path(lake.url, f"{KEY}.partial")
    try:
        wait_until(lambda: path.exists() and path.stat().st_size > 200_000, 60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        gate.set()
    held = path.stat().st_size
    assert not lake.exists(KEY)
    assert lake.list("raw") == []
    pulled = pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert pulled.path.read_bytes() == DATA
    assert pulled.record.sha256 == hashlib.sha256(DATA).hexdigest()
    assert server.log[1].range == f"bytes={held}-"
    assert pulled.received == len(DATA) - held
    assert names(lake) == ["a.tar", "a.tar.sha256"]


def test_a_file_that_changed_since_its_pull_was_ended_is_pulled_anew(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(keep=250_000)] + [Fault(status=503)] * 9
    with pytest.raises(TransferError):
        pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert names(lake) == ["a.tar.partial", "a.tar.version.partial"]
    changed = bytes(reversed(DATA))
    server.files[PATH], server.faults[PATH] = File(changed, etag='"v2"'), []
    pulled = pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert server.log[-1].range == "bytes=250000-"
    assert pulled.path.read_bytes() == changed
    assert pulled.record.sha256 == hashlib.sha256(changed).hexdigest()


def test_a_pull_killed_before_its_file_got_its_name_asks_nothing_more(server, lake, monkeypatch):
    server.files[PATH] = File(DATA)
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert not lake.exists(KEY)
    assert pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY).received == 0
    assert lake.read(KEY) == DATA
    assert len(server.log) == 1


def test_the_part_of_another_url_is_not_taken_over(server, lake):
    server.files[PATH] = server.files["/b.tar"] = File(DATA)
    server.always[PATH] = Fault(keep=1000, ignore_range=True)
    with pytest.raises(TransferError):
        pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert names(lake) == ["a.tar.partial", "a.tar.version.partial"]
    pull(lake, Remote(url=server.url("/b.tar")), KEY, policy=HASTY)
    assert server.log[-1].range == ""


def test_a_partial_without_or_with_a_torn_note_is_not_believed(server, lake):
    server.files[PATH] = File(DATA)
    for note in (None, b'{"url": "http'):
        key = raw_key("set", str(note is None), "a.tar")
        lake.write(f"{key}.partial", b"old bytes")
        if note:
            lake.write(f"{key}.version.partial", note)
        assert pull(lake, Remote(url=server.url(PATH)), key, policy=HASTY).path.read_bytes() == DATA


def test_two_pullers_of_one_file_pull_it_once(server, lake):
    gate = threading.Event()
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(before=lambda: gate.wait(20))]
    other = open_lake(lake.url)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pull, lake, Remote(url=server.url(PATH)), KEY)
        wait_until(lambda: server.log)
        second = pool.submit(pull, other, Remote(url=server.url(PATH)), KEY)
        time.sleep(0.3)
        assert not second.done()
        gate.set()
        results = [first.result(), second.result()]
    assert sorted(result.received for result in results) == [0, len(DATA)]
    assert len(server.log) == 1
    assert results[0].path.read_bytes() == DATA


def test_a_puller_that_opened_the_partial_of_one_that_then_failed_pulls_the_file_itself(server, lake, monkeypatch):
    gate, futures, lock = threading.Event(), [], partial.try_lock

    def lock_late(stream):
        if server.log and not gate.is_set():  # the second puller, whose file the first is about to remove
            gate.set()
            futures[0].exception(20)
        return lock(stream)

    monkeypatch.setattr(partial, "try_lock", lock_late)
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(before=lambda: gate.wait(20), status=403)]
    with ThreadPoolExecutor(2) as pool:
        futures.append(pool.submit(pull, lake, Remote(url=server.url(PATH)), KEY))
        wait_until(lambda: server.log)
        second = pool.submit(pull, open_lake(lake.url), Remote(url=server.url(PATH)), KEY)
        assert second.result().path.read_bytes() == DATA
    assert isinstance(futures[0].exception(), TransferError)
    assert names(lake) == ["a.tar", "a.tar.sha256"]


def test_a_crowd_of_processes_leaves_one_whole_file(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(keep=70_000)] * 2
    assert start_pullers(lake, server.url(PATH), 4).wait(60) == 0
    wait_until(lambda: names(lake) == ["a.tar", "a.tar.sha256"])
    assert lake.read(KEY) == DATA
    assert sum(asked.sent for asked in server.log) == len(DATA)


def test_no_byte_is_pulled_that_finds_no_room(server, lake, monkeypatch):
    server.files[PATH] = File(DATA)
    usage = shutil.disk_usage(lake.url)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1234))
    with pytest.raises(UserError, match=r"needs 400,000 bytes and 1,234 are free; make room"):
        pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)
    assert names(lake) == []


def test_a_lake_that_cannot_be_written_is_a_sentence(server, lake):
    server.files[PATH] = File(DATA)
    Path(lake.url, "raw").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY)


def test_progress_is_told_in_bytes(server, lake):
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(keep=100_000)]
    told = []
    pull(lake, Remote(url=server.url(PATH)), KEY, policy=HASTY, progress=lambda *args: told.append(args))
    assert {(key, total) for key, _, total in told} == {(KEY, len(DATA))}
    done = [count for _, count, _ in told]
    assert done == sorted(done)
    assert done[-1] == len(DATA)


@pytest.mark.parametrize(
    "key", ["ct/x/1/a", "raw/a", "raw/set/1/../../x", "/raw/set/1/a", "raw/set//a", "raw/set/1/a.sha256",
            "raw/set/1/a.partial"]
)  # fmt: skip
def test_a_key_outside_raw_or_of_a_record_is_refused(lake, key):
    with pytest.raises(UserError, match=r"is no key of a raw file|ends like what lies beside"):
        pull(lake, Remote(url="http://127.0.0.1:9/x"), key)


def test_a_key_names_source_and_version():
    seen = Version(etag='"x"', size=3)
    assert raw_key("amos", "7262581", "amos22.zip") == "raw/amos/7262581/amos22.zip"
    assert raw_key("amos", seen, "a/b.zip") == f"raw/amos/{seen.fingerprint[:16]}/a/b.zip"


def test_a_path_and_a_file_url_are_copied_and_noticed_when_they_change(lake, tmp_path):
    source = tmp_path / "a file.tar"
    source.write_bytes(DATA)
    for number, url in enumerate([str(source), source.as_uri()]):
        remote = Remote(url=url, sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA))
        assert pull(lake, remote, raw_key("set", str(number), "a.tar")).path.read_bytes() == DATA
    first = probe(Remote(url=str(source)))
    assert first.size == len(DATA)
    source.write_bytes(DATA)
    assert not first.matches(probe(Remote(url=str(source))))


def test_a_path_that_is_not_there_is_a_sentence(lake, tmp_path):
    with pytest.raises(TransferError, match=r"missing\.tar cannot be read \(No such file"):
        pull(lake, Remote(url=str(tmp_path / "missing.tar")), KEY)


def test_many_files_come_within_the_bounds_and_each_error_stays_its_own(server, lake):
    wanted = {f"/{n}.tar": DATA[n * 1000 : (n + 1) * 1000] for n in range(12)}
    together = threading.Barrier(2, timeout=20)
    for number, (path, data) in enumerate(wanted.items()):
        server.files[path] = File(data)
        server.faults[path] = [Fault(before=together.wait if number < 2 else lambda: time.sleep(0.02))]
    server.faults["/3.tar"] = [Fault(status=403)]
    files = [(Remote(url=server.url(path)), raw_key("set", "1", path[1:])) for path in wanted]
    policy = HASTY.replace(connections=4, connections_per_host=2)
    results = dict(pull_many(lake, files, policy=policy))
    assert set(results) == {key for _, key in files}
    assert isinstance(results.pop("raw/set/1/3.tar"), TransferError)
    assert {Path(key).name: lake.read(key) for key in results} == {
        path[1:]: data for path, data in wanted.items() if path != "/3.tar"
    }
    assert server.most_at_once == 2


def test_one_slow_host_does_not_hold_up_another(server, lake, tmp_path):
    gate = threading.Event()
    server.files[PATH] = File(DATA)
    server.faults[PATH] = [Fault(before=lambda: gate.wait(20))] * 2
    (tmp_path / "b").write_bytes(b"local")
    slow = [(Remote(url=server.url(PATH)), raw_key("set", str(n), "a.tar")) for n in range(5)]
    local = [(Remote(url=str(tmp_path / "b")), raw_key("set", "1", "b"))]
    policy = HASTY.replace(connections=3, connections_per_host=2)
    results = pull_many(lake, slow + local, policy=policy)
    assert next(results)[0] == "raw/set/1/b"
    gate.set()
    assert len(list(results)) == 5


def test_a_reader_that_stops_early_stops_the_pulls_and_keeps_what_they_had(server, lake):
    server.files[PATH] = File(DATA)
    server.files["/b.tar"] = File(b"short")
    server.faults[PATH] = [Fault(keep=100_000)] + [Fault(status=503, headers={"Retry-After": "60"})] * 9
    files = [(Remote(url=server.url(PATH)), KEY), (Remote(url=server.url("/b.tar")), raw_key("set", "1", "b.tar"))]
    started = time.monotonic()
    results = pull_many(lake, files, policy=HASTY.replace(longest_retry_after_s=100))
    assert next(results)[0] == "raw/set/1/b.tar"
    wait_until(lambda: len(server.log) >= 3)
    results.close()
    assert time.monotonic() - started < 20
    assert Path(lake.url, f"{KEY}.partial").stat().st_size == 100_000


CUTS = st.lists(st.integers(0, 5_000), max_size=4)


@given(size=st.integers(1, 5_000), cuts=CUTS, chunked=st.booleans(), validator=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_a_connection_breaks_the_bytes_are_the_right_ones(server, lake, size, cuts, chunked, validator):
    data = DATA[:size]
    server.files[PATH] = File(data, etag='"v1"' if validator else "")
    server.faults[PATH] = [Fault(keep=min(cut, size - 1), chunked=chunked) for cut in cuts]
    key = raw_key("set", str(len(server.log)), "a.tar")
    policy = HASTY.replace(attempts=6, first_wait_s=0, longest_wait_s=0)
    assert pull(lake, Remote(url=server.url(PATH)), key, policy=policy).path.read_bytes() == data
