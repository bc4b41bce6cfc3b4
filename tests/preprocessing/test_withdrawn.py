"""Withdrawn cases leave the next manifest, stay readable by the old one, and exclude for good what they excluded."""

from contextlib import nullcontext
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import RECIPE, MadeSource
from test_ingest import in_this_process
from test_split import TEST, TRAIN, rows, splits, twin, twins

from infra.lake import open_lake
from infra.settings import Settings
from preprocessing import ingest as module
from preprocessing.ingest import ingest
from preprocessing.manifest import commit, read_manifest
from preprocessing.manifest_diff import read_diff
from preprocessing.store import open_case

__all__ = ["twins"]  # a fixture
FIRST, SECOND = TRAIN["b"][:2]


def test_an_ingest_withdraws_what_is_no_longer_listed_and_the_old_manifest_still_opens_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(module, "fan_out", in_this_process)
    (tmp_path / "data").mkdir()
    source, lake = MadeSource(tmp_path / "data", patients=3), open_lake(str(tmp_path / "lake"))
    here = Settings(home=tmp_path / "home")
    ingest(lake, RECIPE, [source], settings=here)
    source.patients = 2
    source.changes = {0: {"version": "v2", "notes": ("measured anew",)}}
    (done,) = ingest(lake, RECIPE, [source], settings=here).sources
    assert (done.listed, done.converted, done.unchanged, done.withdrawn) == (2, 1, 1, 1)
    assert done.stored > 0

    old, new = (read_manifest(lake, RECIPE, number).by_case() for number in (1, 2))
    assert ("made", "case-2") in old
    assert ("made", "case-2") not in new
    for manifest in (old, new):
        for row in manifest.values():
            assert open_case(lake, row.key).read_all("image").size
    assert old["made", "case-0"].key != new["made", "case-0"].key
    assert {change.case: change.kinds for change in read_diff(lake, RECIPE).cases} == {
        "case-0": ("changed",),
        "case-2": ("withdrawn",),
    }


@pytest.mark.parametrize("gone", ["withdrawn", "quarantined", "another scan"])
def test_a_case_stays_excluded_when_the_test_case_it_was_excluded_for_is_gone(tmp_path, twins, gone):
    twins.add(twin(("a", TEST), ("b", FIRST)))
    lake = open_lake(str(tmp_path))
    (test,) = rows("a", TEST)
    commit(lake, RECIPE, {"b": rows("b", FIRST, SECOND)})
    commit(lake, RECIPE, {"a": [test, *rows("a", *TRAIN["a"][:1])]})
    assert splits(lake)["b", FIRST] == "excluded"
    left = {
        "withdrawn": [],
        "quarantined": [test.replace(status="quarantined", reason="damaged", key="", seal="")],
        "another scan": [test.replace(key="ct/r/a/other.zarr")],
    }[gone]
    after = commit(lake, RECIPE, {"a": [*left, *rows("a", *TRAIN["a"][:1])]})
    assert splits(lake)["b", FIRST] == "excluded"
    assert splits(lake)["b", SECOND] == "train"
    assert after.by_case()["b", FIRST].cluster == f"b/{FIRST}"


def test_what_is_tied_to_an_excluded_case_later_is_excluded_as_if_it_had_been_there_in_time(tmp_path, twins):
    late = TRAIN["c"][0]
    twins |= {twin(("a", TEST), ("b", FIRST)), twin(("b", FIRST), ("c", late))}
    lake = open_lake(str(tmp_path))
    commit(lake, RECIPE, {"a": rows("a", TEST), "b": rows("b", FIRST)})
    commit(lake, RECIPE, {"a": []})
    commit(lake, RECIPE, {"c": rows("c", *TRAIN["c"][:2])})
    assert splits(lake) == {("b", FIRST): "excluded", ("c", late): "excluded", ("c", TRAIN["c"][1]): "train"}


def test_an_excluded_case_that_comes_back_is_excluded(tmp_path, twins):
    twins.add(twin(("a", TEST), ("b", FIRST)))
    lake = open_lake(str(tmp_path))
    commit(lake, RECIPE, {"a": rows("a", TEST), "b": rows("b", FIRST, SECOND)})
    commit(lake, RECIPE, {"a": [], "b": rows("b", SECOND)})
    commit(lake, RECIPE, {"c": rows("c", TRAIN["c"][0])})
    commit(lake, RECIPE, {"b": rows("b", FIRST, SECOND)})
    assert splits(lake)["b", FIRST] == "excluded"
    assert splits(lake)["b", SECOND] == "train"


LISTINGS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sets(st.integers(0, 2)), st.booleans()), min_size=2, max_size=8
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LISTINGS, st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=2, max_size=4))
def test_whatever_is_listed_in_whatever_order_no_case_leaves_excluded(tmp_path_factory, twins, listings, alike):
    cases = {"a": [TEST, *TRAIN["a"][:2]], "b": TRAIN["b"][:3], "c": TRAIN["c"][:3]}
    copies = sorted((source, cases[source][n]) for source, n in alike)
    twins.clear()
    twins |= {twin(one, other) for one, other in pairwise(copies)}
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    excluded: set = set()
    for source, there, sealed in listings:
        listed = rows(source, *(cases[source][n] for n in sorted(there)))
        if not sealed:
            listed = [row.replace(status="quarantined", reason="x", key="", seal="") for row in listed]
        commit(lake, RECIPE, {source: listed})
        now = splits(lake)
        assert all(now[case] == "excluded" for case in excluded & now.keys())
        excluded |= {case for case, split in now.items() if split == "excluded"}
