"""The lake: atomic writes, exclusive creation, clear refusals; the same in a folder and in a bucket."""

import json
import pickle
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from infra.errors import UserError
from infra.lake import Lake, open_lake

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.server)])
def lake(request, tmp_path) -> Lake:
    if request.param == "folder":
        return open_lake(str(tmp_path / "lake"))
    return open_lake(f"{request.getfixturevalue('s3_bucket')}/lake")


def test_what_is_written_is_read_listed_and_deleted(lake):
    lake.write("a/b/c.txt", b"1")
    lake.write("a/b/c.txt", b"2")
    lake.write("a/d", b"3")
    assert lake.read("a/b/c.txt") == b"2"
    assert lake.list("a") == ["a/b/c.txt", "a/d"]
    assert lake.list("a/b/") == ["a/b/c.txt"]
    assert lake.list("nothing") == []
    assert lake.list("a/d") == []  # an object is no folder
    assert lake.exists("a/d")
    assert not lake.exists("a/b")
    lake.delete("a/d")
    lake.delete("a/d")
    assert lake.list() == ["a/b/c.txt", "lake.json"]


def test_one_listing_says_size_and_time_of_every_object(lake):
    before = datetime.now(UTC) - timedelta(seconds=2)
    lake.write("a/b c/é#1.txt", b"123")
    lake.write("a/d", b"4")
    lake.write("ab", b"")
    found = {one.key: one for one in lake.objects("a")}
    assert {key: one.size for key, one in found.items()} == {"a/b c/é#1.txt": 3, "a/d": 1}
    assert all(before < one.modified <= datetime.now(UTC) for one in found.values())
    assert {one.key for one in lake.objects()} == {"a/b c/é#1.txt", "a/d", "ab", "lake.json"}
    assert list(lake.objects("nothing")) == []


def test_more_objects_than_one_request_takes_are_listed_and_deleted(lake, monkeypatch):
    monkeypatch.setattr("infra.s3_objects.PAGE", 2)
    keys = [f"many/{n}" for n in range(5)]
    lake.write_all((key, b"1") for key in keys)
    lake.write("kept", b"1")
    assert sorted(one.key for one in lake.objects("many")) == keys
    lake.delete_all([*keys, "many/none"])
    assert lake.list() == ["kept", "lake.json"]
    lake.delete_all([])


def test_deleting_leaves_folders_that_hold_something_else(tmp_path):
    lake = open_lake(str(tmp_path))
    lake.write_all([("a/b/c/d/1", b""), ("a/b/2", b""), ("a/3", b"")])
    lake.delete_all(["a/b/c/d/1", "a/b/2"])
    assert not (tmp_path / "a" / "b").exists()
    assert lake.list("a") == ["a/3"]


def test_touching_makes_an_object_new_and_never_makes_one(lake):
    lake.write("seal.json", b"sealed")
    (before,) = [one for one in lake.objects() if one.key == "seal.json"]
    time.sleep(1.1)  # a bucket's times are whole seconds
    lake.touch("seal.json")
    (after,) = [one for one in lake.objects() if one.key == "seal.json"]
    assert after.modified > before.modified
    assert lake.read("seal.json") == b"sealed"
    with pytest.raises(FileNotFoundError):
        lake.touch("gone.json")
    assert not lake.exists("gone.json")


def test_a_link_opens_without_any_credential(lake):
    lake.write("previews/a b#c.png", b"picture")
    assert urllib.request.urlopen(lake.link("previews/a b#c.png")).read() == b"picture"


def test_a_missing_object_is_a_file_not_found(lake):
    with pytest.raises(FileNotFoundError):
        lake.read("no/such/key")


def test_only_one_of_many_creators_wins(lake):
    def create(number: int) -> int | None:
        try:
            lake.create("manifests/1", str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [n for n in pool.map(create, range(16)) if n is not None]
    assert len(winners) == 1
    assert lake.read("manifests/1") == str(winners[0]).encode()
    assert lake.list("manifests") == ["manifests/1"]


def test_it_travels_to_another_process_and_stays_the_same_lake(lake):
    lake.exists("connected")
    other = pickle.loads(pickle.dumps(lake))
    assert other == lake
    lake.write("x", b"1")
    assert other.read("x") == b"1"


def test_opening_again_finds_the_same_id(lake):
    assert open_lake(lake.url) == lake
    assert len(lake.id) == 32


def test_a_zarr_group_lives_under_a_key(lake):
    group = lake.group("ct/one.zarr", "a")
    group.create_array("0", data=np.arange(10))
    assert lake.exists("ct/one.zarr/0/zarr.json")
    assert (lake.group("ct/one.zarr")["0"][2:4] == [2, 3]).all()
    with pytest.raises(FileNotFoundError):
        lake.group("ct/two.zarr")


def test_a_newer_format_is_refused_by_name(lake):
    lake.write("lake.json", json.dumps({"format": 7, "id": "x"}).encode())
    with pytest.raises(UserError, match="lake of format 7; this meddiff reads up to 1"):
        open_lake(lake.url)


def test_a_marker_that_is_none_is_refused(lake):
    lake.write("lake.json", b"[]")
    with pytest.raises(UserError, match="is not a lake's marker"):
        open_lake(lake.url)


def test_reading_a_place_without_a_lake_makes_none(tmp_path):
    with pytest.raises(UserError, match=r"there is no lake at .*nowhere"):
        open_lake(str(tmp_path / "nowhere"), create=False)
    assert not (tmp_path / "nowhere").exists()


def test_file_urls_and_paths_are_the_same_lake(tmp_path):
    assert open_lake(f"file://{tmp_path}") == open_lake(str(tmp_path))
    assert open_lake(f"file://{tmp_path}").url_of("a/b") == f"{tmp_path}/a/b"


@pytest.mark.parametrize("url", ["http://host/lake", "gs://bucket/lake"])
def test_another_scheme_is_refused(url):
    with pytest.raises(UserError, match="is no lake url: give a folder"):
        open_lake(url)


def test_a_place_that_cannot_be_a_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot be opened: .*Not a directory"):
        open_lake(str(tmp_path / "file"))


USE_A_BUCKET = """
import sys
import numpy as np
from infra.lake import open_lake

lake = open_lake(sys.argv[1])
lake.write("x", b"1")
group = lake.group("ct/one.zarr", "a")
group.create_array("0", data=np.arange(3))
print(lake.read("x"), lake.group("ct/one.zarr")["0"][:].tolist())
"""


@pytest.mark.server
def test_a_process_that_used_a_bucket_ends_in_silence(s3_bucket):
    command = [sys.executable, "-c", USE_A_BUCKET, f"{s3_bucket}/lake"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert child.stdout == "b'1' [0, 1, 2]\n"
    assert child.stderr == ""


@pytest.mark.server
def test_a_bucket_that_does_not_exist_is_a_sentence(s3_bucket):
    with pytest.raises(UserError, match="the bucket or drive does not exist; create it first"):
        open_lake(f"{s3_bucket}-other/lake")


@pytest.mark.server
def test_a_dead_endpoint_is_a_sentence_soon(s3_bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be opened: Could not connect .*127\.0\.0\.1:9"):
        open_lake(f"{s3_bucket}/lake")


def test_leftovers_of_killed_writers_are_not_listed(tmp_path):
    lake = open_lake(str(tmp_path))
    (tmp_path / ".x.123.partial").write_bytes(b"half")
    (tmp_path / "c.0.456.partial").write_bytes(b"half")
    assert lake.list() == ["lake.json"]
