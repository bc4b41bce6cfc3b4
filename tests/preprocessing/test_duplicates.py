"""Duplicates: copies of a scan are found whatever was done to them; other scans and other visits are not."""

import itertools

import numpy as np
import pytest
from benchmarks.duplicates import COPIES, TRUE_PAIRS, coarse, copies, measure, real_scans
from store_samples import RECIPE, made_image, made_pyramid, made_record

from infra.lake import open_lake
from preprocessing.duplicates import clusters, find_twins
from preprocessing.duplicates.candidates import Arrangement, candidate_pairs
from preprocessing.duplicates.same_scan import SAME_AGREEMENT, agreement
from preprocessing.duplicates.signature import coarse_level, read_signature, signature
from preprocessing.manifest import ManifestRow, commit
from preprocessing.store import write_case

RECALL = 1.0  # of every kind of copy, measured on the scan of `test_real_copies_are_found`


def test_a_signature_is_small_text_also_of_the_longest_body():
    long = np.tile(made_image(0, (60, 70, 80)), (10, 1, 1))
    assert len(signature(long)) <= 4096
    own, stretched = read_signature(signature(long))
    assert own.levels.shape[1] == stretched.levels.shape[1] == 64
    assert own.levels.max() <= 15 < len(own.levels)


def test_a_volume_without_anything_in_it_has_no_points_and_no_candidates():
    empty = signature(np.full((20, 30, 30), -1000, np.int16))
    assert candidate_pairs([empty, empty], [True, True]) == {}
    assert candidate_pairs([], []) == {}


def test_only_pairs_with_a_new_case_are_compared():
    text = signature(made_image(0))
    assert candidate_pairs([text, text], [False, False]) == {}
    assert candidate_pairs([text, text], [False, True]).keys() == {(0, 1)}


@pytest.mark.parametrize("mirror", itertools.product((1, -1), repeat=3))
def test_the_arrangement_of_a_mirrored_part_is_told(mirror):
    image = made_image(1)
    part = image[5:33, 3:40, 4:47][tuple(slice(None, None, step) for step in mirror)]
    found = candidate_pairs([signature(image), signature(part)], [True, True])[0, 1]
    assert mirror in {arrangement.mirror for arrangement in found}
    assert max(agreement(image, part, arrangement) for arrangement in found) > 0.95


def test_a_wrong_arrangement_does_not_agree():
    assert agreement(made_image(0), made_image(1), Arrangement((1, 1, 1), (9, -7, 8))) < 0.5


def test_the_level_nearest_to_four_millimetres_is_compared():
    assert [coarse_level(spacing, 3) for spacing in (0.5, 1.0, 2.0, 4.0, 8.0)] == [2, 2, 1, 0, 0]


def test_a_cluster_goes_over_any_number_of_steps_and_has_its_smallest_name():
    assert clusters(list("dcba"), ["4", "3", "2", "1"], [("3", "4"), ("2", "3")]) == ["b", "b", "b", "a"]
    assert clusters(["x", "y"], ["", ""], []) == ["x", "y"]
    assert clusters(["x", "y"], ["k", "k"], []) == ["x", "x"]
    assert clusters([], [], []) == []


def stored(lake, source: str, seed: int, signed: bool = True) -> ManifestRow:
    pyramid, key = made_pyramid(seed), f"ct/{source}/{seed}.zarr"
    record = made_record(source=source)
    if not lake.exists(f"{key}/zarr.json"):
        write_case(lake, key, pyramid, record, RECIPE)
    text = signature(pyramid.image[0]) if signed else ""
    return ManifestRow(source=source, case=str(seed), patient=str(seed), status="sealed", key=key, signature=text)


def test_twins_are_the_same_whichever_case_comes_last_and_are_not_sought_again(tmp_path, monkeypatch):
    lake = open_lake(str(tmp_path))
    data = {source: [stored(lake, source, seed) for seed in (0, 1)] for source in "ab"}
    found = []
    for order in itertools.permutations("ab"):
        place = open_lake(str(tmp_path / "".join(order)))
        for source in order:
            data[source] = [stored(place, source, seed) for seed in (0, 1)]
            manifest = commit(place, RECIPE, {source: data[source]})
        found.append(manifest.fingerprint)
        assert list(manifest.rows["cluster"]) == ["a/0", "a/1", "a/0", "a/1"]
    assert found[0] == found[1]
    monkeypatch.setattr("preprocessing.manifest.find_twins", None)
    again = commit(place, RECIPE, {"a": data["a"]})
    assert again.number == manifest.number


def test_a_case_that_cannot_be_read_is_nobodys_twin(tmp_path):
    lake = open_lake(str(tmp_path))
    row = stored(lake, "a", 0)
    assert find_twins(lake, {row.key: row.signature, "ct/gone.zarr": row.signature}, {row.key}) == set()


@pytest.fixture(scope="module")
def scans(real_data):
    return real_scans(real_data, ("abdomen-3mm", "abdomen-3mm-crop", "sarcoma", "lung-two-visits", "chest-4mm"))


def test_real_copies_are_found(scans):
    chosen = {name: scan for name, scan in scans.items() if "STS_001" in name}
    table = measure(chosen, {}, COPIES)
    assert {row["copy"]: row["recall"] for row in table if row["copy"] != "pairs"} == dict.fromkeys(COPIES, RECALL)


def test_the_known_pairs_are_twins_and_no_other_scans_are(scans):
    table = measure(scans, TRUE_PAIRS, ())
    (row,) = [row for row in table if row["copy"] == "pairs"]
    assert (row["precision"], row["recall"]) == (1.0, 1.0)
    assert row["pairs"] > 20


def test_two_visits_of_a_patient_are_two_scans(scans):
    one, other = (coarse(*scan) for name, scan in scans.items() if name.startswith("lung-two-visits"))
    found = candidate_pairs([signature(one), signature(other)], [True, True])
    assert max((agreement(one, other, a) for some in found.values() for a in some), default=0) < SAME_AGREEMENT - 0.05


def test_every_copy_of_the_benchmark_is_another_volume(scans):
    image, geometry = next(iter(scans.values()))
    made = dict(copies(image, geometry))
    assert made.keys() == set(COPIES)
