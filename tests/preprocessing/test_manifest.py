"""Manifests: numbered, exclusive, merged by the loser; a fingerprint over what the cases are and nothing else."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from store_samples import RECIPE

from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.settings import Settings
from preprocessing import manifest_table
from preprocessing.manifest import ManifestRow, case_rows, commit, read_manifest
from preprocessing.origins import remember_root, stored_origin
from preprocessing.recipe import SplitRule
from preprocessing.split import patient_split


def sealed(source: str, case: str, **changes) -> ManifestRow:
    values = {
        "source": source,
        "case": case,
        "patient": f"patient of {case}",
        "status": "sealed",
        "input": "0" * 16,
        "key": f"ct/r/{source}/{case}/{'0' * 16}.zarr",
        "seal": "d" * 32,
        "regions": ("chest",),
        "anatomy": "full",
        "version": "v1",
    }
    return ManifestRow.model_validate(values | changes)


def refused(source: str, case: str, reason: str = "no CT") -> ManifestRow:
    return sealed(source, case, status="quarantined", reason=reason, key="", seal="", regions=(), anatomy="none")


@pytest.fixture
def lake(tmp_path) -> Lake:
    return open_lake(str(tmp_path / "lake"))


def test_an_empty_lake_has_an_empty_manifest_number_0(lake):
    manifest = read_manifest(lake, RECIPE)
    assert manifest.number == 0
    assert len(manifest.rows) == 0
    assert len(manifest.sealed(split="train", region="chest")) == 0
    assert len(manifest.fingerprint) == 32


def test_rows_come_back_as_they_were_sorted_by_source_and_case(lake):
    rows = [sealed("b", "2", lesion=True, companions=("low_dose",)), refused("b", "1"), sealed("b", "3")]
    commit(lake, RECIPE, {"b": rows})
    commit(lake, RECIPE, {"a": [sealed("a", "9")]})
    back = read_manifest(lake, RECIPE)
    assert back.number == 2
    assert list(back.rows["case"]) == ["9", "1", "2", "3"]
    row = back.by_case()["b", "2"]
    assert row.replace(cluster="", split="train") == rows[0]


def test_a_commit_replaces_the_rows_of_its_sources_and_keeps_the_others(lake):
    commit(lake, RECIPE, {"a": [sealed("a", "1"), sealed("a", "2")], "b": [sealed("b", "1")]})
    after = commit(lake, RECIPE, {"a": [sealed("a", "3")]})
    assert sorted(after.by_case()) == [("a", "3"), ("b", "1")]


def test_nothing_changed_means_no_new_manifest(lake):
    first = commit(lake, RECIPE, {"a": [sealed("a", "1"), sealed("a", "2")]})
    second = commit(lake, RECIPE, {"a": [sealed("a", "2"), sealed("a", "1")]})
    assert second.number == first.number == 1
    assert second.fingerprint == first.fingerprint


def test_the_fingerprint_is_over_cases_not_over_numbers_or_origins(lake, tmp_path):
    one = commit(lake, RECIPE, {"a": [sealed("a", "1")], "b": [refused("b", "1")]})
    other = open_lake(str(tmp_path / "other"))
    commit(other, RECIPE, {"b": [refused("b", "1")]})
    two = commit(other, RECIPE, {"a": [sealed("a", "1", origin=("/elsewhere/x",), version="v2")]})
    assert two.number == 2
    assert two.fingerprint == one.fingerprint
    changed = commit(other, RECIPE, {"b": [refused("b", "1", "another reason")]})
    assert changed.fingerprint != one.fingerprint


def test_filters_combine(lake):
    rows = [
        sealed("a", "1", regions=("chest", "abdomen"), lesion=True),
        sealed("a", "2", regions=("abdomen",), anatomy="partial"),
        refused("a", "3"),
    ]
    manifest = commit(lake, RECIPE, {"a": rows})
    assert list(manifest.sealed()["case"]) == ["1", "2"]
    assert list(manifest.sealed(region="abdomen", lesion=False)["case"]) == ["2"]
    assert list(manifest.sealed(anatomy="full", source="a")["case"]) == ["1"]
    assert len(manifest.sealed(source="b")) == 0


def commit_many(url: str, source: str, times: int) -> None:
    lake = open_lake(url)
    for n in range(times):
        commit(lake, RECIPE, {f"{source}{n}": [sealed(f"{source}{n}", "1")]})


def test_two_processes_lose_none_of_each_others_rows(lake):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=commit_many, args=(lake.url, name, 4)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    manifest = read_manifest(lake, RECIPE)
    assert manifest.number == 8
    assert len(manifest.rows) == 8


@pytest.mark.server
def test_writers_to_a_bucket_lose_none_of_each_others_rows(s3_bucket):
    lake = open_lake(f"{s3_bucket}/lake")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: commit_many(lake.url, name, 2), "abc"))
    manifest = read_manifest(lake, RECIPE)
    assert manifest.number == 6
    assert len(manifest.rows) == 6


def test_an_older_manifest_stays_readable_by_its_number(lake):
    commit(lake, RECIPE, {"a": [sealed("a", "1")]})
    commit(lake, RECIPE, {"a": [sealed("a", "2")]})
    assert list(read_manifest(lake, RECIPE, 1).rows["case"]) == ["1"]
    with pytest.raises(UserError, match="has no manifest 3 of recipe test"):
        read_manifest(lake, RECIPE, 3)


def test_a_newer_format_is_refused_by_name(lake, monkeypatch):
    newer = manifest_table.SCHEMA.with_metadata({manifest_table.FORMAT_KEY: b"2"})
    monkeypatch.setattr(manifest_table, "SCHEMA", newer)
    commit(lake, RECIPE, {"a": [sealed("a", "1")]})
    with pytest.raises(UserError, match="has format 2; this meddiff reads up to 1"):
        read_manifest(lake, RECIPE)


def test_the_split_follows_the_recipes_shares():
    rule = SplitRule()
    splits = [patient_split("source", str(n), rule) for n in range(20_000)]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.90, "val": 0.05, "test": 0.05}, abs=0.006)


def test_all_cases_of_a_patient_have_one_split(lake):
    rows = [sealed("a", f"{n}", patient=f"{n // 3}") for n in range(60)]
    table = commit(lake, RECIPE, {"a": rows}).rows
    assert (table.groupby("patient")["split"].nunique() == 1).all()


def test_the_split_does_not_depend_on_the_order_of_ingest(lake, tmp_path):
    sources = {name: [sealed(name, f"{n}") for n in range(30)] for name in "abc"}
    other = open_lake(str(tmp_path / "other"))
    for name in "abc":
        commit(lake, RECIPE, {name: sources[name]})
    for name in "cab":
        commit(other, RECIPE, {name: sources[name][::-1]})
    assert read_manifest(lake, RECIPE).fingerprint == read_manifest(other, RECIPE).fingerprint


def test_the_json_rows_have_the_promised_keys_and_absolute_places(lake, tmp_path):
    settings = Settings(home=tmp_path / "home")
    root = tmp_path / "data"
    remember_root(root, settings)
    origin = (
        stored_origin(str(root / "x/ct.nrrd"), lake, root),
        stored_origin(lake.url_of("raw/p/ct.nii"), lake, None),
    )
    assert not any(str(tmp_path) in text for text in origin)
    manifest = commit(lake, RECIPE, {"a": [sealed("a", "1", origin=origin, patient="p"), refused("a", "2")]})
    good, bad = case_rows(manifest, lake, settings)
    assert good == {
        "source": "a",
        "case": "1",
        "patient": "p",
        "status": "sealed",
        "reason": None,
        "url": f"{lake.url}/ct/r/a/1/{'0' * 16}.zarr",
        "origin": [f"{root}/x/ct.nrrd", f"{lake.url}/raw/p/ct.nii"],
        "regions": ["chest"],
        "anatomy": "full",
        "lesion": False,
        "licence": "unknown",
        "cluster": "a/1",
        "split": patient_split("a", "p", RECIPE.split),
    }
    assert (bad["status"], bad["reason"], bad["url"]) == ("quarantined", "no CT", None)


def test_an_origin_of_another_machine_stays_unresolved(lake, tmp_path):
    origin = stored_origin("/data/x/ct.nrrd", lake, tmp_path.__class__("/data"))
    manifest = commit(lake, RECIPE, {"a": [sealed("a", "1", origin=(origin,))]})
    assert case_rows(manifest, lake, Settings(home=tmp_path))[0]["origin"] == [origin]
