"""Splits: by patient, never moved by more data but to excluded, in whatever order and company data comes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import RECIPE
from test_manifest import sealed

from infra.lake import open_lake
from preprocessing import manifest as module
from preprocessing.manifest import commit, read_manifest
from preprocessing.recipe import SplitRule
from preprocessing.split import listed_splits, patient_split, without_leaks

NAMES = [str(n) for n in range(400)]
TEST = next(n for n in NAMES if patient_split("a", n, RECIPE.split) == "test")
TRAIN = {source: [n for n in NAMES if patient_split(source, n, RECIPE.split) == "train"] for source in "abc"}


def key(source: str, case: str) -> str:
    return f"ct/r/{source}/{case}.zarr"


@pytest.fixture
def twins(monkeypatch):
    """Pairs of keys that count as one scan, in place of what voxels would say."""
    pairs: set[tuple[str, str]] = set()

    def find(_lake, signatures, new):
        return {pair for pair in pairs if set(pair) <= signatures.keys() and set(pair) & set(new)}

    monkeypatch.setattr(module, "find_twins", find)
    return pairs


def rows(source: str, *patients: str, **changes):
    return [sealed(source, n, patient=n, key=key(source, n), **changes) for n in patients]


def splits(lake, recipe=RECIPE) -> dict[tuple[str, str], str]:
    found = read_manifest(lake, recipe).rows
    return dict(zip(zip(found["source"], found["case"], strict=True), found["split"], strict=True))


def twin(*cases: tuple[str, str]) -> tuple[str, str]:
    one, other = sorted(key(*case) for case in cases)
    return one, other


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations("abc"), st.integers(1, 3))
def test_in_any_order_of_ingest_a_case_only_ever_moves_to_excluded(tmp_path_factory, twins, order, chain):
    twins.clear()
    twins |= {twin(("a", TEST), ("b", TRAIN["b"][0])), twin(("b", TRAIN["b"][0]), ("c", TRAIN["c"][0]))}
    data = {"a": rows("a", TEST, *TRAIN["a"][:2]), "b": rows("b", *TRAIN["b"][:chain]), "c": rows("c", *TRAIN["c"][:2])}
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    before: dict = {}
    for source in order:
        commit(lake, RECIPE, {source: data[source]})
        after = splits(lake)
        assert all(after[case] in (split, "excluded") for case, split in before.items() if split != "test")
        assert all(after[case] == "test" for case, split in before.items() if split == "test")
        before = after
    assert before["b", TRAIN["b"][0]] == before["c", TRAIN["c"][0]] == "excluded"  # over two steps
    assert before["c", TRAIN["c"][1]] == "train"
    assert read_manifest(lake, RECIPE).by_case()["c", TRAIN["c"][0]].cluster == f"a/{TEST}"


def test_concurrent_commits_give_the_manifest_that_one_after_the_other_gives(tmp_path, twins):
    twins |= {twin(("a", TEST), ("b", TRAIN["b"][0])), twin(("b", TRAIN["b"][1]), ("c", TRAIN["c"][0]))}
    data = {"a": rows("a", TEST), "b": rows("b", *TRAIN["b"][:3]), "c": rows("c", *TRAIN["c"][:2])}
    one, other = open_lake(str(tmp_path / "one")), open_lake(str(tmp_path / "other"))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda source: commit(one, RECIPE, {source: data[source]}), data))
    for source in "cab":
        commit(other, RECIPE, {source: data[source]})
    assert read_manifest(one, RECIPE).fingerprint == read_manifest(other, RECIPE).fingerprint
    assert splits(one)["b", TRAIN["b"][0]] == "excluded"


def test_other_scans_of_an_excluded_patient_are_excluded_with_it():
    patients = [TEST, TRAIN["b"][0], TRAIN["b"][0], TRAIN["b"][1]]
    found = without_leaks(["test", "train", "train", "train"], list("abbb"), patients, list("xxyz"), [True] * 4)
    assert found == ["test", "excluded", "excluded", "train"]


def test_a_quarantined_test_case_excludes_nobody():
    assert without_leaks(["test", "train"], ["a", "b"], ["p", "q"], ["x", "x"], [False, True]) == ["test", "train"]
    assert without_leaks([], [], [], [], []) == []


def test_a_data_sets_own_split_is_honoured_and_its_patients_stay_together(tmp_path):
    lake = open_lake(str(tmp_path))
    patient = TRAIN["a"][0]
    cases = [sealed("a", "1", patient=patient, declared="test", key="k1"), sealed("a", "2", patient=patient, key="k2")]
    commit(lake, RECIPE, {"a": cases})
    assert splits(lake) == {("a", "1"): "test", ("a", "2"): "excluded"}
    assert listed_splits(["a"], [patient], ["val"], SplitRule()) == ["val"]


def test_paper_like_reads_the_same_data_without_exclusions_and_marks_every_row(tmp_path, twins):
    twins |= {twin(("a", TEST), ("b", TRAIN["b"][0]))}
    lake = open_lake(str(tmp_path))
    clean = commit(lake, RECIPE, {"a": rows("a", TEST), "b": rows("b", *TRAIN["b"][:2])})
    recipe = RECIPE.replace(split=RECIPE.split.replace(paper_like=True))
    assert recipe.fingerprint == RECIPE.fingerprint
    paper_like = read_manifest(lake, recipe)
    assert splits(lake)["b", TRAIN["b"][0]] == "excluded"
    assert splits(lake, recipe)["b", TRAIN["b"][0]] == "train"
    assert paper_like.rows["paper_like"].all()
    assert paper_like.fingerprint != clean.fingerprint
    assert all(row["paper_like"] for row in module.case_rows(paper_like, lake))
    assert commit(lake, recipe, {"a": rows("a", TEST)}).fingerprint == clean.fingerprint
