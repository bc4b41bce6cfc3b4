"""Garbage of the data, by the property: no kept manifest ever loses anything, and a second look finds none."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import RECIPE

from infra.garbage import remove
from infra.lake import Lake, open_lake
from preprocessing.garbage import manifest_garbage, picture_garbage, read_references, store_garbage
from preprocessing.manifest import commit, read_fingerprint, read_manifest
from preprocessing.manifest_table import ManifestRow
from preprocessing.recipe import demo
from preprocessing.seal import seal_key

CASES = st.dictionaries(st.sampled_from(["a", "b/c", "d e", "x@1f2e3d4c"]), st.integers(0, 2), max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from(["one", "idc:two"]), CASES), min_size=2, max_size=6)
SOON = timedelta(minutes=1)


def key_of(source: str, case: str, version: int) -> str:
    anew = "-0123abcd" if version == 2 else ""
    return f"ct/{RECIPE.fingerprint}/{source.replace(':', '-')}/{case}/{min(version, 1):016x}{anew}.zarr"


def stored(lake: Lake, source: str, case: str, version: int, *, seal: bool = True) -> ManifestRow:
    """A row whose store is a few small objects."""
    key, input_ = key_of(source, case, version), f"{min(version, 1):016x}"
    for name in ("0/c/0/0/0", "zarr.json"):
        lake.write(f"{key}/{name}", b"x")
    if seal:
        lake.write(seal_key(key), b"{}")
    lake.write(f"previews/{RECIPE.fingerprint}/{source.replace(':', '-')}/{case}-{input_}.png", b"PNG")
    lake.write(f"segmentations/0/{source.replace(':', '-')}/{case}/{input_}.nii.gz", b"map")
    return ManifestRow(
        source=source, case=case, patient=case, status="sealed", key=key, input=input_, seal=f"{version}"
    )


def collected(lake: Lake, keep: int, needed=(), cutoff=None, old_recipes=False) -> list:
    """What is found, after it was removed."""
    at = cutoff or datetime.now(UTC) + SOON
    manifests, kept = manifest_garbage(lake, keep=keep, cutoff=at, needed=needed, old_recipes=old_recipes)
    references = read_references(lake, kept)
    found = [*manifests, *store_garbage(lake, references, at), *picture_garbage(lake, references, at)]
    for thing in found:
        assert remove(lake, thing, at)
    return found


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(1, 4), st.sets(st.integers(1, 6)))
def test_no_kept_manifest_loses_anything(tmp_path_factory, steps, keep, trained_on):
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    for source, cases in steps:
        commit(lake, RECIPE, {source: [stored(lake, source, case, version) for case, version in cases.items()]})
    stored(lake, "one", "never committed", 0)
    stored(lake, "one", "never sealed", 0, seal=False)
    numbers = [int(key[-16:-8]) for key in lake.list("manifests")]
    if not numbers:  # nothing but empty listings
        return
    before = {number: read_manifest(lake, RECIPE, number) for number in numbers}
    needed = {before[number].fingerprint for number in trained_on & before.keys()}
    collected(lake, keep, needed)
    after = {int(key[-16:-8]) for key in lake.list("manifests")}
    assert {*numbers[-keep:]} <= after
    assert needed <= {read_fingerprint(lake, RECIPE, number) for number in after}
    there = set(lake.list())
    rows = [row for number in after for row in read_manifest(lake, RECIPE, number).by_case().values()]
    for row in rows:
        assert {seal_key(row.key), f"{row.key}/zarr.json", f"{row.key}/0/c/0/0/0"} <= there
    for number in after:
        assert read_manifest(lake, RECIPE, number).rows.equals(before[number].rows)
    stores = {key.removesuffix(".seal.json") for key in there if key.startswith("ct/") and key.endswith(".seal.json")}
    assert stores == {row.key.removesuffix(".zarr") for row in rows}
    assert {key.rpartition("/")[2] for key in there if key.startswith("segmentations/")} <= {
        f"{row.input}.nii.gz" for row in rows
    }
    assert collected(lake, keep, needed) == []


@pytest.fixture
def lake(tmp_path) -> Lake:
    return open_lake(str(tmp_path))


def test_pictures_and_segmentations_of_what_is_kept_stay(lake):
    commit(lake, RECIPE, {"idc:two": [stored(lake, "idc:two", "b/c", 0), stored(lake, "idc:two", "d e", 2)]})
    lake.write(f"previews/{RECIPE.fingerprint}/idc-two.png", b"contact sheet")
    lake.write("previews/unknown/idc-two.png", b"contact sheet of a recipe without data")
    found = collected(lake, 1)
    assert [thing.key for thing in found] == ["previews/unknown/idc-two.png"]


def test_a_new_manifest_is_not_too_old_however_few_are_kept(lake):
    for version in range(3):
        commit(lake, RECIPE, {"one": [stored(lake, "one", "a", version)]})
    hour = datetime.now(UTC) - timedelta(hours=1)
    first, second, _ = lake.list("manifests")
    assert collected(lake, 1, cutoff=hour) == []
    for key in lake.list():
        os.utime(Path(lake.url, key), (0, 0))
    os.utime(Path(lake.url, lake.list("manifests")[-1]))
    assert {thing.key for thing in collected(lake, 1, cutoff=hour)} >= {first}
    assert second in lake.list("manifests"), "it was the newest an hour ago"


def test_a_recipe_of_which_no_case_can_be_opened_is_never_old(lake):
    """Which version it has is written in its cases alone."""
    older = RECIPE.replace(version=1)
    commit(lake, older, {"one": [ManifestRow(source="one", case="a", patient="a", status="quarantined", reason="x")]})
    assert collected(lake, 1, old_recipes=True) == []


def test_manifests_of_recipes_that_nobody_knows_stay_while_a_run_may_be_made_on_them(lake):
    """A run may have read them without exclusions, which gives another fingerprint that only their recipe can tell."""
    unknown = demo().replace(chunk=16)
    for version in range(2):
        commit(lake, unknown, {"one": [stored(lake, "one", "a", version)]})
    first, _ = lake.list("manifests")
    at = datetime.now(UTC) + SOON

    def found(needed):
        return [one.key for one in manifest_garbage(lake, keep=1, cutoff=at, needed=needed, old_recipes=False)[0]]

    assert found({"f" * 32}) == []
    assert found(set()) == [first]
