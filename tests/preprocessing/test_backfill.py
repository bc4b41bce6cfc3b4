"""Backfill: exactly the cases that are asked for are converted again; readers of the former data never notice."""

import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from store_samples import RECIPE, MadeSource, made_image, write_image
from test_ingest import in_this_process

from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from preprocessing import convert
from preprocessing import ingest as module
from preprocessing.conversions import newest_conversion
from preprocessing.ingest import ingest
from preprocessing.manifest import read_manifest
from preprocessing.seal import read_seal, seal_key
from preprocessing.selection import Selection
from preprocessing.store import open_case


class World:
    """A lake into which a source of three cases was ingested, and which cases were read since."""

    def __init__(self, folder, lake):
        (folder / "data").mkdir()
        self.lake, self.settings = lake, Settings(home=folder / "home")
        self.source = MadeSource(folder / "data")
        self.read: list[str] = []
        self.ingest()

    def ingest(self, **selection):
        self.read.clear()
        return ingest(
            self.lake, RECIPE, [self.source], selection=Selection(**selection), settings=self.settings
        ).sources[0]

    def rows(self):
        return {case: row for (_, case), row in read_manifest(self.lake, RECIPE).by_case().items()}


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    return made_world(tmp_path, monkeypatch, str(tmp_path / "lake"))


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.server)])
def any_world(request, tmp_path, monkeypatch) -> World:
    """The same in a folder and in a bucket."""
    bucket = request.param == "bucket"
    url = f"{request.getfixturevalue('s3_bucket')}/lake" if bucket else str(tmp_path / "lake")
    return made_world(tmp_path, monkeypatch, url)


def made_world(folder, monkeypatch, url) -> World:
    monkeypatch.setattr(module, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(module, "fan_out", in_this_process)
    made = World(folder, open_lake(url))
    read = convert.read_resampled
    monkeypatch.setattr(convert, "read_resampled", lambda case, mm: made.read.append(case.id) or read(case, mm))
    return made


def other_bytes(monkeypatch):
    """The code, or a library of its, finds one Hounsfield unit more from now on."""
    resample = convert.resample

    def brighter(volume, spacing):
        found = resample(volume, spacing)
        found.image[found.image > 0] += 1
        return found

    monkeypatch.setattr(convert, "resample", brighter)


def test_one_case_is_converted_again_and_the_same_bytes_are_the_same_data(any_world):
    world = any_world
    before = read_manifest(world.lake, RECIPE)
    done = world.ingest(only=("case-1",), force=True)
    assert world.read == ["case-1"]
    assert (done.converted, done.unchanged, done.sealed) == (1, 2, 3)
    assert read_manifest(world.lake, RECIPE).number == before.number
    assert read_manifest(world.lake, RECIPE).fingerprint == before.fingerprint


def test_other_bytes_are_a_new_version_and_readers_of_the_old_one_read_on(any_world, monkeypatch):
    world = any_world
    old = world.rows()["case-1"]
    reader = open_case(world.lake, old.key)
    other_bytes(monkeypatch)
    world.ingest(only=("case-1",), force=True)
    new = world.rows()["case-1"]
    assert (read_manifest(world.lake, RECIPE).number, new.input) == (2, old.input)
    assert new.key == f"{old.key.removesuffix('.zarr')}-{new.seal[:8]}.zarr"
    assert read_seal(world.lake, old.key).digest == old.seal
    image = made_image(1)
    assert (reader.read_all("image") == image).all()
    assert (open_case(world.lake, new.key).read_all("image") == image + (image > 0)).all()
    assert [world.rows()[f"case-{n}"].key.count("-") for n in (0, 2)] == [1, 1], "the others are where they were"


def test_a_store_that_was_made_anew_stays_when_its_files_are_only_touched(world, monkeypatch):
    with monkeypatch.context() as changed:
        other_bytes(changed)
        world.ingest(only=("case-1",), force=True)
    anew = world.rows()["case-1"].key
    world.source.changes = {1: {"version": "touched"}}
    assert world.ingest().converted == 1
    assert world.read == []
    assert world.rows()["case-1"].key == anew
    assert world.ingest(only=("case-1",), force=True).converted == 1
    assert world.rows()["case-1"].key.count("-") == 1, "the first bytes again, in their first store"


def test_a_conversion_that_is_stopped_before_its_seal_changes_nothing_and_is_finished_later(world, monkeypatch):
    old = world.rows()["case-1"]
    other_bytes(monkeypatch)
    with monkeypatch.context() as killed:
        seal = convert.seal_case

        def killed_in_the_lake(lake, *rest):
            if lake == world.lake:
                raise KeyboardInterrupt
            return seal(lake, *rest)

        killed.setattr(convert, "seal_case", killed_in_the_lake)
        with pytest.raises(KeyboardInterrupt):
            world.ingest(only=("case-1",), force=True)
    assert world.rows()["case-1"] == old
    assert open_case(world.lake, old.key).read_all("image").size
    assert newest_conversion(world.lake, old.key).seal is None
    world.source.changes = {1: {"version": "touched"}}
    world.ingest()
    assert world.read == ["case-1"]
    assert world.rows()["case-1"].key != old.key
    assert open_case(world.lake, world.rows()["case-1"].key).read_all("image").size


def test_only_leaves_everything_else_as_it_is(world):
    world.source.patients = 4
    world.source.changes = {n: {"version": "v2", "notes": ("new",)} for n in (0, 1, 3)}
    world.source.changes[2] = {"id": "other"}
    before = world.rows()
    done = world.ingest(only=("case-0",))
    assert world.read == ["case-0"]
    assert (done.converted, done.unchanged, done.withdrawn) == (1, 2, 0)
    after = world.rows()
    assert set(after) == set(before), "case-3 and other are not new, case-2 is not withdrawn"
    assert [case for case in before if after[case] != before[case]] == ["case-0"]
    assert world.ingest().converted == 3, "the rest is found by the next ingest"
    assert set(world.rows()) == {"case-0", "case-1", "case-3", "other"}


def test_only_of_a_limited_source_reaches_beyond_the_limit(world):
    world.source.patients = 6
    assert world.ingest(only=("case-5",), limit=1).converted == 1
    assert set(world.rows()) == {"case-0", "case-1", "case-2", "case-5"}


def test_an_unlisted_case_is_one_sentence(world):
    with pytest.raises(UserError, match="source made lists no case nobody; `meddiff cases` prints the ids"):
        world.ingest(only=("case-0", "nobody"), force=True)


def test_force_alone_is_every_case(world):
    assert world.ingest(force=True).converted == 3
    assert sorted(world.read) == ["case-0", "case-1", "case-2"]


def test_since_makes_again_what_is_older_and_once_only(any_world, monkeypatch):
    world = any_world
    time.sleep(1.1)  # a bucket's times are whole seconds
    world.ingest(only=("case-1",), force=True)
    since = datetime.now(UTC) - timedelta(seconds=1)
    other_bytes(monkeypatch)
    assert world.ingest(since=since - timedelta(days=1)).converted == 0
    time.sleep(1.1)
    moment = datetime.now(UTC).replace(microsecond=0)
    assert world.ingest(only=("case-0", "case-1"), since=moment).converted == 2
    assert world.ingest(since=moment).converted == 1
    assert world.read == ["case-2"]
    assert world.ingest(since=moment).converted == 0
    assert read_manifest(world.lake, RECIPE).number == 3


def test_since_goes_on_where_it_was_stopped(world, monkeypatch):
    moment = datetime.now(UTC)
    other_bytes(monkeypatch)
    with monkeypatch.context() as killed:
        killed.setattr(module, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.ingest(only=("case-0", "case-1"), since=moment)
    assert all("-" not in row.key.rpartition("/")[2] for row in world.rows().values())
    assert world.ingest(since=moment).converted == 3
    assert world.read == ["case-2"], "the two others were made before the kill"
    assert all("-" in row.key.rpartition("/")[2] for row in world.rows().values())


def test_since_tries_again_what_is_quarantined(world):
    write_image(world.source.path / "made-1.nrrd", made_image(1)[:2])
    world.source.changes = {1: {"version": "v2"}}
    assert world.ingest().quarantined == 1
    write_image(world.source.path / "made-1.nrrd", made_image(1))  # as if the code had been mended
    assert world.ingest().converted == 0
    done = world.ingest(since="2020-01-01")
    assert (done.converted, done.quarantined) == (1, 0)


def test_a_reused_store_says_that_it_is_in_use(world):
    key = seal_key(world.rows()["case-1"].key)
    (before,) = [one for one in world.lake.objects() if one.key == key]
    world.source.changes = {1: {"version": "touched"}}
    time.sleep(0.02)
    world.ingest()
    (after,) = [one for one in world.lake.objects() if one.key == key]
    assert after.modified > before.modified


def test_a_moment_without_a_zone_is_utc_and_one_to_come_is_refused(world):
    assert Selection(since="2026-01-02").since == datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(ValidationError):
        Selection(since="yesterday")
    with pytest.raises(UserError, match="is in the future"):
        world.ingest(since=datetime.now(UTC) + timedelta(days=1))
