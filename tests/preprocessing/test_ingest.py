"""Ingest: every listed case becomes a row, unchanged ones unread, whatever happens to a worker."""

from contextlib import nullcontext

import pytest
from store_samples import RECIPE, MadeSource

from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.settings import Settings
from infra.spent import read_spent
from preprocessing import ingest as module
from preprocessing.ingest import ingest
from preprocessing.ingest_counts import pace_of_cases
from preprocessing.manifest import case_rows, read_manifest
from preprocessing.preview import sheet_key
from preprocessing.seal import read_seal
from preprocessing.sources.folder import FolderSource


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), workers=2)


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, settings) -> tuple[Lake, MadeSource, list]:
    """A lake with one source: two good cases, one that kills its worker, one listed with a problem."""
    folder = tmp_path_factory.mktemp("data")
    source = MadeSource(folder, patients=4)
    source.changes = {2: {"version": "kill"}, 3: {"problem": "two images in one case"}}
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    seen: list = []
    ingest(lake, RECIPE, [source], settings=settings, on_progress=lambda *values: seen.append(values))
    return lake, source, seen


def test_every_case_is_a_row_the_bad_ones_with_their_reason(ingested):
    lake, _, _ = ingested
    rows = read_manifest(lake, RECIPE).by_case()
    assert {case: row.status for (_, case), row in rows.items()} == {
        "case-0": "sealed",
        "case-1": "sealed",
        "case-2": "quarantined",
        "case-3": "quarantined",
    }
    assert rows["made", "case-2"].reason == (
        "unexpected: the worker process died while converting it, probably for want of memory"
    )
    assert rows["made", "case-3"].reason == "two images in one case"


def test_what_the_cases_took_is_noted(ingested):
    lake, _, _ = ingested
    spent = read_spent(lake, "cases", pace_of_cases(RECIPE, "made"))
    stored = [read_seal(lake, row.key) for row in read_manifest(lake, RECIPE).by_case().values() if row.key]
    assert spent.count == 2  # the dead one gave no time, the listed problem took none
    assert spent.seconds > 0
    assert spent.objects == sum(len(seal.objects) for seal in stored) > 0
    assert spent.stored == sum(size for seal in stored for size, _ in seal.objects.values())


def test_progress_counts_every_case_once(ingested):
    _, _, seen = ingested
    assert seen[0] == ("made", 0, 4, None)
    assert [(done, total) for _, done, total, _ in seen[1:]] == [(n, 4) for n in range(1, 5)]
    assert {row.case for *_, row in seen[1:]} == {f"case-{n}" for n in range(4)}


def test_stored_origins_resolve_on_this_machine(ingested, settings):
    lake, source, _ = ingested
    first = case_rows(read_manifest(lake, RECIPE), lake, settings)[0]
    assert first["origin"] == [str(source.path / "made-0.nrrd")]


def test_a_contact_sheet_and_previews_are_there(ingested):
    lake, _, _ = ingested
    assert lake.read(sheet_key(RECIPE, "made")).startswith(b"\x89PNG")
    assert len(lake.list(f"previews/{RECIPE.fingerprint}/made")) == 2


def test_unchanged_cases_need_no_worker_and_make_no_manifest(ingested, settings, monkeypatch):
    lake, source, _ = ingested
    monkeypatch.setattr(module, "open_cluster", None)
    monkeypatch.setitem(source.changes, 2, {"problem": "left out by hand"})
    before = ingest(lake, RECIPE, [source], settings=settings)
    assert (before.converted, before.unchanged) == (1, 3)
    again = ingest(lake, RECIPE, [source], settings=settings)
    assert (again.converted, again.unchanged, again.quarantined) == (0, 4, 2)
    assert again.manifest.number == before.manifest.number
    assert again.manifest.fingerprint == before.manifest.fingerprint


def test_a_case_that_is_no_longer_listed_leaves_the_manifest(ingested, settings, tmp_path):
    _, source, _ = ingested
    lake = open_lake(str(tmp_path))
    source = MadeSource(source.path, patients=2)
    source.changes = {n: {"problem": "x"} for n in range(2)}
    ingest(lake, RECIPE, [source], settings=settings)
    source.patients = 1
    summary = ingest(lake, RECIPE, [source], settings=settings)
    assert list(summary.manifest.rows["case"]) == ["case-0"]
    assert summary.manifest.number == 2


def test_two_cases_of_one_name_are_both_kept(settings, tmp_path):
    source = MadeSource(tmp_path, patients=2)
    source.changes = {0: {"problem": "x"}, 1: {"id": "case-0", "problem": ""}}
    rows = ingest(open_lake(str(tmp_path / "lake")), RECIPE, [source], settings=settings).manifest.by_case()
    assert rows["made", "case-0#2"].reason == "2 cases of source made are called case-0; rename one"


def test_a_source_that_lists_nothing_is_an_error(settings, tmp_path):
    with pytest.raises(UserError, match="source made lists no case"):
        ingest(open_lake(str(tmp_path / "lake")), RECIPE, [MadeSource(tmp_path, patients=0)], settings=settings)


def in_this_process(function, items, **_):
    for item in items:
        try:
            yield item, function(item)
        except UserError as error:
            yield item, error


def test_a_full_disk_ends_the_ingest_and_nothing_is_refused_for_it(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_cluster", lambda *_: nullcontext())
    monkeypatch.setattr(module, "fan_out", in_this_process)
    source = MadeSource(tmp_path, patients=2)
    source.changes = {1: {"version": "full"}}
    lake = open_lake(str(tmp_path / "lake"))
    with pytest.raises(UserError, match="no space is left for made/case-1"):
        ingest(lake, RECIPE, [source], settings=settings)
    assert read_manifest(lake, RECIPE).number == 0


def problem_folder(path, *names: str) -> FolderSource:
    path.mkdir(parents=True)
    for name in names:
        (path / f"{name}_seg.nrrd").write_bytes(b"a label without an image needs no worker")
    return FolderSource(path=str(path))


def test_two_folders_stand_side_by_side_in_any_order(tmp_path):
    one, other = problem_folder(tmp_path / "one", "x", "y"), problem_folder(tmp_path / "other", "x", "z")
    fingerprints = []
    for order in ((one, other), (other, one), (one, other, one)):
        lake = open_lake(str(tmp_path / f"lake{len(fingerprints)}"))
        for source in order:
            rows = ingest(lake, RECIPE, [source], settings=Settings(home=tmp_path / "home")).manifest.rows
        fingerprints.append(read_manifest(lake, RECIPE).fingerprint)
        assert [case.partition("@")[0] for case in rows["case"]] == ["x_seg", "x_seg", "y_seg", "z_seg"]
        assert rows["case"].is_unique
    assert len(set(fingerprints)) == 1
    (tmp_path / "one" / "y_seg.nrrd").unlink()
    rows = ingest(lake, RECIPE, [one], settings=Settings(home=tmp_path / "home")).manifest.rows
    assert [case.partition("@")[0] for case in rows["case"]] == ["x_seg", "x_seg", "z_seg"]


def test_a_named_folder_is_one_data_set_wherever_it_lies(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    for place in ("one", "other"):
        source = problem_folder(tmp_path / place, "x", place).replace(name="trial")
        rows = ingest(lake, RECIPE, [source], settings=Settings(home=tmp_path / "home")).manifest.rows
        assert list(rows["case"]) == sorted([f"{place}_seg", "x_seg"])
        assert set(rows["source"]) == {"trial"}
