"""Verify: damage in the lake is found, kept from every reader, and mended by the next ingest."""

import pytest
from store_samples import RECIPE, MadeSource

from infra.errors import UserError
from infra.lake import Lake, open_lake
from preprocessing.case import CaseError
from preprocessing.changes import is_unchanged
from preprocessing.convert import convert_case
from preprocessing.manifest import commit, read_manifest
from preprocessing.seal import read_seal, seal_key
from preprocessing.store import open_case
from preprocessing.verify import verify

SHARD = "labels/anatomy/0/c/0/0/0"


def converted(lake: Lake, source: MadeSource) -> dict:
    """The rows of the source's cases after converting and committing them."""
    rows = [convert_case(case, source, RECIPE, lake) for case in source.cases()]
    return commit(lake, RECIPE, {"made": rows}).by_case()


@pytest.fixture
def source(tmp_path) -> MadeSource:
    (tmp_path / "data").mkdir()
    return MadeSource(tmp_path / "data", patients=2)


@pytest.fixture
def lake(tmp_path, source) -> Lake:
    lake = open_lake(str(tmp_path / "lake"))
    converted(lake, source)
    return lake


def test_a_whole_lake_stays_as_it_is(lake):
    before = {name: lake.read(name) for name in lake.list()}
    seen = []
    assert verify(lake, RECIPE, lambda *counts: seen.append(counts)) == []
    assert seen == [(1, 2), (2, 2)]
    assert {name: lake.read(name) for name in lake.list()} == before


@pytest.mark.parametrize("harm", ["changed", "cut short", "lost"])
def test_a_damaged_case_is_quarantined_and_the_next_ingest_mends_it(lake, source, harm):
    whole = read_manifest(lake, RECIPE)
    row = whole.by_case()["made", "case-1"]
    shard = f"{row.key}/{SHARD}"
    data = lake.read(shard)
    if harm == "lost":
        lake.delete(shard)
    else:
        lake.write(shard, data[:40] if harm == "cut short" else bytes([data[0] ^ 1]) + data[1:])

    (refused,) = verify(lake, RECIPE)
    assert refused.case == "case-1"
    assert f"1 stored objects are missing or damaged, {SHARD} first" in refused.reason
    with pytest.raises(CaseError, match="not sealed"):
        open_case(lake, row.key)
    now = read_manifest(lake, RECIPE)
    assert now.number == whole.number + 1
    assert [case.status for case in now.by_case().values()] == ["sealed", "quarantined"]
    assert not is_unchanged(source.case(1), now.by_case()["made", "case-1"])
    assert is_unchanged(source.case(0), now.by_case()["made", "case-0"])

    assert converted(lake, source)["made", "case-1"] == row
    assert lake.read(shard) == data
    assert read_manifest(lake, RECIPE).fingerprint == whole.fingerprint
    assert verify(lake, RECIPE) == []


@pytest.mark.parametrize("harm", ["lost", "cut short", "changed"])
def test_a_lost_or_damaged_seal_is_found(lake, source, harm):
    row = read_manifest(lake, RECIPE).by_case()["made", "case-0"]
    seal = lake.read(seal_key(row.key))
    lake.delete(seal_key(row.key))
    if harm != "lost":
        lake.write(seal_key(row.key), seal[:80] if harm == "cut short" else seal.replace(b"zarr.json", b"zurr.json", 1))
    with pytest.raises(CaseError, match="not sealed"):
        open_case(lake, row.key)
    (refused,) = verify(lake, RECIPE)
    assert "its seal is gone or damaged" in refused.reason
    assert converted(lake, source)["made", "case-0"] == row
    assert lake.read(seal_key(row.key)) == seal


def test_a_case_of_a_newer_meddiff_is_left_alone(lake):
    row = read_manifest(lake, RECIPE).by_case()["made", "case-1"]
    newer = read_seal(lake, row.key).replace(format=2).model_dump_json().encode()
    lake.write(seal_key(row.key), newer)
    before = {name: lake.read(name) for name in lake.list()}
    with pytest.raises(UserError, match="its seal has format 2"):
        verify(lake, RECIPE)
    assert {name: lake.read(name) for name in lake.list()} == before


def test_a_refused_case_keeps_its_folder_and_its_split(lake, source):
    rows = [convert_case(case, source, RECIPE, lake).replace(root="1" * 12, declared="test") for case in source.cases()]
    commit(lake, RECIPE, {"made": rows})
    lake.delete(seal_key(rows[0].key))
    verify(lake, RECIPE)
    row = read_manifest(lake, RECIPE).by_case()["made", "case-0"]
    assert (row.status, row.root, row.declared) == ("quarantined", "1" * 12, "test")
