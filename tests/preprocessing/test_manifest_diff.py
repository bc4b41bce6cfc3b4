"""The diff of two data versions: every case that differs, by what became of it, and no other."""

import pytest
from store_samples import RECIPE
from test_manifest import refused, sealed

from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.manifest import commit, read_fingerprint, read_manifest
from preprocessing.manifest_diff import read_diff


@pytest.fixture
def lake(tmp_path):
    return open_lake(str(tmp_path / "lake"))


def kinds(found) -> dict:
    return {(change.source, change.case): change.kinds for change in found.cases}


def test_every_kind_of_change_is_told_apart(lake):
    stays = [sealed("a", "same"), refused("a", "still")]
    before = [sealed("a", "gone"), sealed("a", "other input"), sealed("a", "other seal"), sealed("a", "spoilt"),
              refused("a", "mended"), refused("a", "refused")]  # fmt: skip
    after = [sealed("a", "new"), sealed("a", "other input", input="1" * 16), sealed("a", "other seal", seal="e" * 32),
             refused("a", "spoilt", "it is an MR image"), sealed("a", "mended"),
             refused("a", "refused", "another")]  # fmt: skip
    commit(lake, RECIPE, {"a": [*stays, *before], "b": [sealed("b", "untouched")]})
    commit(lake, RECIPE, {"a": [*stays, *after]})
    found = read_diff(lake, RECIPE)
    assert kinds(found) == {
        ("a", "gone"): ("withdrawn",),
        ("a", "mended"): ("now sealed",),
        ("a", "new"): ("added",),
        ("a", "other input"): ("changed",),
        ("a", "other seal"): ("changed",),
        ("a", "refused"): ("another reason",),
        ("a", "spoilt"): ("now quarantined",),
    }
    assert found.counts() == {
        "a": {"added": 1, "withdrawn": 1, "changed": 2, "now sealed": 1, "now quarantined": 1, "another reason": 1}
    }
    spoilt = next(change for change in found.cases if change.case == "spoilt")
    assert spoilt.before.status == "sealed"
    assert spoilt.after.reason == "it is an MR image"


def test_moves_between_splits_and_clusters_are_told(lake):
    test, other = (sealed("a", "t", patient="p", key="k1", declared="test"), sealed("a", "u", key="k2", patient="q"))
    commit(lake, RECIPE, {"a": [test, other.replace(declared="train")]})
    commit(lake, RECIPE, {"a": [test, other.replace(declared="train", key="k1")]})
    (change,) = read_diff(lake, RECIPE).cases
    assert change.kinds == ("moved", "another cluster")
    assert (change.before.split, change.after.split) == ("train", "excluded")
    assert (change.before.cluster, change.after.cluster) == ("a/u", "a/t")


def test_a_case_that_is_shown_under_another_name_is_the_same_case(lake):
    one, other = (sealed("folder", "x", root=root, key=root, patient=root) for root in ("1" * 12, "2" * 12))
    commit(lake, RECIPE, {"folder": [one]}, [one.root])
    commit(lake, RECIPE, {"folder": [other]}, [other.root])
    assert kinds(read_diff(lake, RECIPE)) == {
        ("folder", "x@11111111"): ("another cluster", "renamed"),
        ("folder", "x@22222222"): ("added",),
    }


def test_versions_are_named_by_number_or_by_the_start_of_a_fingerprint(lake):
    for n in range(3):
        commit(lake, RECIPE, {"a": [sealed("a", str(n))]})
    first, last = (read_fingerprint(lake, RECIPE, number) for number in (1, 3))
    assert first == read_manifest(lake, RECIPE, 1).fingerprint
    wanted = {("a", "0"): ("withdrawn",), ("a", "2"): ("added",)}
    assert kinds(read_diff(lake, RECIPE, "1", "3")) == wanted
    assert kinds(read_diff(lake, RECIPE, first[:8], last)) == wanted
    assert kinds(read_diff(lake, RECIPE, "1")) == wanted
    assert kinds(read_diff(lake, RECIPE, "2", "1")) == {("a", "0"): ("added",), ("a", "1"): ("withdrawn",)}
    for name in ("4", "abc", "g" * 8, "f" * 33):
        with pytest.raises(UserError, match=rf"has no data version {name} of recipe test: .* \(1 to 3\)"):
            read_diff(lake, RECIPE, name)


def test_a_start_that_two_fingerprints_share_names_none(lake, monkeypatch):
    for n in range(2):
        commit(lake, RECIPE, {"a": [sealed("a", str(n))]})
    monkeypatch.setattr("preprocessing.manifest_diff.read_fingerprint", lambda _lake, _recipe, n: f"abcd{n}" + "0" * 27)
    with pytest.raises(UserError, match="abcd may be abcd1"):
        read_diff(lake, RECIPE, "abcd")


def test_a_manifest_of_the_same_data_is_no_version_of_its_own(lake):
    commit(lake, RECIPE, {"a": [sealed("a", "1")]})
    commit(lake, RECIPE, {"a": [sealed("a", "1"), sealed("a", "2")]})
    again = commit(lake, RECIPE, {"a": [sealed("a", "1", version="v2"), sealed("a", "2")]})
    assert again.number == 3
    found = read_diff(lake, RECIPE)
    assert (found.before.number, found.after.number) == (1, 3)
    assert kinds(found) == {("a", "2"): ("added",)}
    assert read_diff(lake, RECIPE, "2", "3").cases == ()


def test_of_the_first_version_everything_is_new_and_of_an_empty_lake_there_is_none(lake):
    with pytest.raises(UserError, match="has no manifest of recipe test: nothing was ingested yet"):
        read_diff(lake, RECIPE)
    commit(lake, RECIPE, {"a": [sealed("a", "1")]})
    assert kinds(read_diff(lake, RECIPE)) == {("a", "1"): ("added",)}
