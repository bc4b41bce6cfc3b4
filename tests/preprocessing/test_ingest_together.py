"""Two ingests of one lake at once, in two real processes, leave what one after the other leaves."""

import multiprocessing
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from store_samples import RECIPE, MadeSource
from test_ingest import in_this_process

from infra.lake import Lake, open_lake
from infra.settings import Settings
from preprocessing import ingest as module
from preprocessing.ingest import ingest
from preprocessing.manifest import case_rows, read_manifest
from preprocessing.verify import verify

START_S = 60
PATIENTS = 3
PAIRS = {
    "two sources": (("one", "one"), ("other", "other")),
    "one source": (("one", "one"), ("one", "one")),
    "two folders of one source": (("one", "made"), ("other", "made")),
}


def made(data: Path, folder: str, name: str) -> MadeSource:
    """A source in a folder of its own, with a case that is refused."""
    (data / folder).mkdir(parents=True, exist_ok=True)
    source = MadeSource(data / folder, PATIENTS, name)
    source.changes = {PATIENTS - 1: {"problem": f"no CT in {folder}"}}
    return source


def begin(barrier) -> None:
    """In each of the two processes: conversions run in itself, as in a worker."""
    global together
    together = barrier
    module.open_cluster = lambda *_: nullcontext()
    module.fan_out = in_this_process


def ingest_at_once(environment: dict, url: str, data: Path, home: Path, folder: str, name: str) -> None:
    """What either process does, as soon as the other one is ready for it."""
    os.environ.update(environment)
    lake = open_lake(url)
    together.wait(START_S)
    ingest(lake, RECIPE, [made(data, folder, name)], settings=Settings(home=home))


@pytest.fixture(scope="module")
def processes():
    """Two processes, of which each takes one call of two."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, begin, [context.Barrier(2)]) as pool:
        yield pool


def one_after_the_other(lake: Lake, data: Path, home: Path, pair) -> None:
    for folder, name in pair:
        ingest(lake, RECIPE, [made(data, folder, name)], settings=Settings(home=home))


def check_both_ways(processes, lake: Lake, tmp_path: Path, pair) -> None:
    data, home = tmp_path / "data", tmp_path / "home"
    for folder, name in pair:
        made(data, folder, name).cases()  # writes the files
    calls = [(dict(os.environ), lake.url, data, home, *one) for one in pair]
    processes.starmap(ingest_at_once, calls, chunksize=1)
    manifest = read_manifest(lake, RECIPE)
    assert verify(lake, RECIPE) == []
    rows = case_rows(manifest, lake, Settings(home=home))
    assert len(rows) == PATIENTS * len(set(pair))
    assert all(Path(origin).is_file() for row in rows for origin in row["origin"])  # both folders are remembered

    other = open_lake(str(tmp_path / "other"))
    one_after_the_other(other, data, tmp_path / "other home", pair)
    assert manifest.fingerprint == read_manifest(other, RECIPE).fingerprint
    assert manifest.number <= 2


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(module, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(module, "fan_out", in_this_process)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(PAIRS["two sources"], id="two sources"),
        pytest.param(PAIRS["one source"], id="one source"),
        pytest.param(PAIRS["two folders of one source"], id="two folders of one source", marks=pytest.mark.slow),
    ],
)
def test_in_a_folder(processes, tmp_path, pair):
    check_both_ways(processes, open_lake(str(tmp_path / "lake")), tmp_path, pair)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("pair", [PAIRS["two sources"], PAIRS["one source"]], ids=["two sources", "one source"])
def test_in_a_bucket(processes, tmp_path, s3_bucket, pair):
    check_both_ways(processes, open_lake(f"{s3_bucket}/lake"), tmp_path, pair)


def test_a_case_that_another_commit_withdrew_in_the_meantime_is_kept_by_who_lists_it(tmp_path, monkeypatch):
    source, lake = made(tmp_path, "one", "one"), open_lake(str(tmp_path / "lake"))
    here = Settings(home=tmp_path / "home")
    before = ingest(lake, RECIPE, [source], settings=here).manifest

    def convert(function, items, **_):
        fewer = MadeSource(source.path, 1, "one")
        monkeypatch.setattr(module, "fan_out", in_this_process)
        ingest(lake, RECIPE, [fewer], settings=here)
        yield from in_this_process(function, items)

    monkeypatch.setattr(module, "fan_out", convert)
    source.changes[0] = {"version": "v2"}
    after = ingest(lake, RECIPE, [source], settings=here).manifest
    assert after.number == 3
    assert after.fingerprint == before.fingerprint


def test_what_another_commit_refused_in_the_meantime_stays_refused(tmp_path, monkeypatch):
    source, lake = made(tmp_path, "one", "one"), open_lake(str(tmp_path / "lake"))
    here = Settings(home=tmp_path / "home")
    row = ingest(lake, RECIPE, [source], settings=here).manifest.by_case()["one", "case-1"]

    def convert(function, items, **_):
        lake.write(f"{row.key}/0/c/0/0/0", b"damaged")
        assert [refused.case for refused in verify(lake, RECIPE)] == ["case-1"]
        yield from in_this_process(function, items)

    monkeypatch.setattr(module, "fan_out", convert)
    source.changes[0] = {"version": "v2"}
    after = ingest(lake, RECIPE, [source], settings=here).manifest
    assert after.by_case()["one", "case-1"].status == "quarantined"
