"""Duplicates: copies of a scan are found whatever was done to them; other scans and other visits are not."""

import itertools

import numpy as np
import pytest
from benchmarks.duplicates import (
    COPIES,
    TRUE_PAIRS,
    made_up_signatures,
    measure,
    phantoms,
    real_scans,
    stored_copies,
    stored_volumes,
)
from store_samples import RECIPE, made_image, made_pyramid, made_record

from infra.lake import open_lake
from preprocessing.duplicates import clusters, find_twins
from preprocessing.duplicates.alike import Cloud, alike_points, all_alike_points, keys_of, sharing
from preprocessing.duplicates.candidates import OWN, PROPOSED, STRETCHED, Arrangement, Matches, candidate_pairs
from preprocessing.duplicates.same_scan import SAME_AGREEMENT, agreement
from preprocessing.duplicates.signature import coarse_level, read_signature, signature
from preprocessing.manifest import ManifestRow, commit
from preprocessing.store import write_case

COPIED = ("chest-4mm__ct-64", "head-4mm", "sarcoma__STS_001")


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


def test_a_candidate_depends_on_its_two_signatures_alone():
    images = [made_image(seed) for seed in range(3)]
    texts = [signature(image) for image in (*images, images[0][3:30], images[1][:, ::-1])]
    together = candidate_pairs(texts, [True] * len(texts))
    assert {(0, 3), (1, 4)} <= together.keys()
    for i, j, *new in ((0, 3, True, False), (1, 4, False, True)):
        assert candidate_pairs([texts[i], texts[j]], new) == {(0, 1): together[i, j]}


@pytest.fixture(scope="module")
def scans(real_data):
    return real_scans(real_data, ("abdomen-3mm", "head-4mm", "sarcoma", "lung-two-visits", "chest-4mm"))


@pytest.fixture(scope="module")
def volumes(scans):
    return stored_volumes(scans)


@pytest.fixture(scope="module")
def copied(scans):
    return stored_copies({name: scans[name] for name in COPIED}, COPIES)


def test_real_copies_are_found_and_taken_for_no_other_scan(volumes, copied):
    *table, _ = measure(volumes, copied, TRUE_PAIRS)
    assert {row["copy"]: row["wanted"] for row in table} == dict.fromkeys(COPIES, len(COPIED))
    assert {row["copy"]: row["found"] for row in table if row["found"] < len(COPIED)} == {}
    assert {row["precision"] for row in table} == {1.0}


def test_the_known_pairs_are_twins_and_no_other_scans_are(volumes):
    (row,) = measure(volumes, {}, TRUE_PAIRS)
    assert (row["wanted"], row["found"], row["merged"]) == (3, 3, 3)
    assert len(volumes) > 10


@pytest.mark.parametrize("kind", [0, 1], ids=["own", "stretched"])
def test_hashing_proposes_nearly_all_that_comparing_all_points_finds(volumes, copied, kind):
    search = (OWN, STRETCHED)[kind]
    read = [read_signature(signature(volume))[kind] for volume in (*volumes.values(), *copied.values())]
    cloud = Cloud.of(read, np.ones(len(read), bool))
    every = all_alike_points(cloud, list(itertools.combinations(range(len(read)), 2)), search.correlation)
    wanted = {pair for pair, _ in Matches.of(cloud, every, search).best(search.enough)}
    proposed = {pair for pair, _ in Matches.of(cloud, alike_points(cloud, search), search).best(PROPOSED)}
    assert len(wanted) > 100
    assert len(wanted & proposed) >= 0.97 * len(wanted)


def test_hashing_compares_few_of_many_points(volumes):
    texts = made_up_signatures([signature(volume) for volume in volumes.values()], 300)
    cloud = Cloud.of([read_signature(text)[0] for text in texts], np.ones(len(texts), bool))
    compared = sum(len(one) for one, _ in sharing(keys_of(cloud, OWN, 0), cloud.fresh))
    assert 0 < compared < 5e-4 * len(cloud.owner) ** 2 / 2


def test_two_visits_of_a_patient_are_two_scans(volumes):
    one, other = (volume for name, volume in volumes.items() if name.startswith("lung-two-visits"))
    found = candidate_pairs([signature(one), signature(other)], [True, True])
    assert max((agreement(one, other, a) for some in found.values() for a in some), default=0) < SAME_AGREEMENT - 0.05


def test_phantoms_of_neighbouring_seeds_are_different_scans():
    (row,) = measure(stored_volumes(phantoms(2)), {}, {})
    assert row["merged"] == 0


def test_thick_and_thin_slices_of_one_scan_are_twins(real_data):
    volumes = stored_volumes(real_scans(real_data, ("head-phantom-thick-thin",)))
    (row,) = measure(volumes, {}, TRUE_PAIRS)
    assert (row["wanted"], row["found"], row["merged"]) == (1, 1, 1)
