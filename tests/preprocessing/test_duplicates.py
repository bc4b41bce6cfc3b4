"""Duplicates: copies of a scan are found whatever was done to them; other scans and other visits are not."""

import itertools

import numpy as np
import pytest
from benchmarks.duplicates import Compared, chosen, compare_scans, copies_against, judged, stored_scans
from benchmarks.duplicates_copies import COPIES, copy_of
from benchmarks.duplicates_scale import made_up_signatures
from benchmarks.duplicates_scans import coarse, half, phantom, real_scans, same_scan
from store_samples import RECIPE, made_image, made_pyramid, made_record

from infra.lake import open_lake
from preprocessing.duplicates import clusters, find_twins
from preprocessing.duplicates.alike import Cloud, keys_of, sharing
from preprocessing.duplicates.candidates import OWN, STRETCHED, Arrangement, arranged, candidate_pairs, proposed_pairs
from preprocessing.duplicates.same_scan import SAME_AGREEMENT, agreement
from preprocessing.duplicates.signature import Points, coarse_level, read_signature, signature
from preprocessing.manifest import ManifestRow, commit
from preprocessing.store import write_case

COPIED = {
    "sarcoma__STS_003": tuple(COPIES),
    "chest-4mm__ct-64": ("mirrored zyx", "30% of z", "60% of z, y, x", "spacing lost", "half of z, mirrored x, 5 mm"),
}

MISSED = {("sarcoma__STS_003", "padded")}  # air beside a cut limb blurs its border, and the limb is small


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


@pytest.mark.parametrize(("points", "alike", "found"), [(50, 4, False), (50, 5, True), (8, 2, True), (9, 2, False)])
def test_of_fewer_points_fewer_need_be_alike(points, alike, found):
    rng = np.random.default_rng(points)
    places = rng.permutation(np.indices((10, 10, 10)).reshape(3, -1).T * 5).astype(np.int16)[:points]
    one, other = rng.integers(0, 16, (2, points, 64)).astype(np.uint8)
    other[:alike] = one[:alike]
    turns = np.ones((points, 3), np.int8)
    arrangement = arranged(Points(one, places, turns), Points(other, places + np.int16(7), turns), OWN)
    assert arrangement == (Arrangement((1, 1, 1), (-7, -7, -7)) if found else None)


@pytest.fixture(scope="module")
def scans(real_data):
    return real_scans(real_data, ("abdomen-3mm", "sarcoma", "lung-two-visits", "chest-4mm", "head-phantom"))


@pytest.fixture(scope="module")
def stored_real(scans):
    return stored_scans(scans)


@pytest.fixture(scope="module")
def compared(stored_real):
    return compare_scans(stored_real)


@pytest.mark.parametrize("name", COPIED)
def test_real_copies_are_found_and_taken_for_no_other_scan(scans, stored_real, name):
    pairs = copies_against(name, scans[name], stored_real, COPIED[name])
    joined = [pair for pair in pairs if pair.agreement >= SAME_AGREEMENT]
    found = {pair.what for pair in joined if pair.other == name}
    assert found == {copy for copy in COPIED[name] if (name, copy) not in MISSED}
    assert all(pair.same for pair in joined)


def test_the_known_pairs_are_twins_and_no_other_scans_are(compared):
    joined = {(pair.one, pair.other) for pair in compared if pair.agreement >= SAME_AGREEMENT}
    assert joined == {(pair.one, pair.other) for pair in compared if pair.same}
    assert ("head-phantom-thick-thin__1mm", "head-phantom-thick-thin__5mm") in joined
    assert (len(joined), len(compared)) == (4, 14 * 13 // 2)


def test_two_visits_of_a_patient_are_two_scans(compared):
    (visits,) = (pair for pair in compared if pair.what == "two visits")
    assert 0.5 < visits.agreement < SAME_AGREEMENT - 0.05


def test_people_scanned_in_one_way_are_different_scans():
    (pair,) = compare_scans(stored_scans({f"phantom 6 of seed {seed}": phantom(seed, 6, 0) for seed in (0, 1)}))
    assert (pair.what, pair.same) == ("one scanner: phantom", False)
    assert pair.agreement < 0.5


@pytest.fixture(scope="module")
def texts(scans, stored_real):
    copies = [coarse(*copy_of(scans["sarcoma__STS_003"], copy)) for copy in COPIES]
    return [*(text for _, text in stored_real.values()), *map(signature, copies)]


@pytest.mark.parametrize("kind", [0, 1], ids=["own", "stretched"])
def test_hashing_proposes_nearly_all_that_comparing_all_points_finds(texts, kind):
    search = (OWN, STRETCHED)[kind]
    read = [read_signature(text)[kind] for text in texts]
    pairs = itertools.combinations(range(len(read)), 2)
    wanted = {(i, j) for i, j in pairs if arranged(read[i], read[j], search)}
    proposed = set(proposed_pairs(Cloud.of(read, np.ones(len(read), bool)), search))
    assert len(wanted) > 100
    assert len(wanted & proposed) >= 0.95 * len(wanted)


def test_hashing_compares_few_of_many_points(stored_real):
    texts = made_up_signatures([text for _, text in stored_real.values()], 300)
    cloud = Cloud.of([read_signature(text)[0] for text in texts], np.ones(len(texts), bool))
    compared = sum(len(one) for one, _ in sharing(keys_of(cloud, OWN, 0), cloud.fresh))
    assert 0 < compared < 5e-4 * len(cloud.owner) ** 2 / 2


def test_a_choice_on_one_half_is_judged_on_the_other():
    names = [next(n for n in map(str, range(99)) if half(n) == which) for which in "ab"]
    pairs = [Compared("copy", name, name, True, 0.9) for name in names]
    pairs += [Compared("visit", name, name, False, value) for name, value in zip(names, (0.6, 0.7), strict=True)]
    assert chosen(pairs[::2]) == 0.65
    rows = {row["what"]: (row["share"], row["precision"]) for row in judged(pairs)}
    assert rows["chosen on a: 0.65, judged on b"] == (1.0, 0.5)
    assert rows["chosen on b: 0.75, judged on a"] == (1.0, 1.0)


def test_scans_of_one_person_are_in_one_half():
    assert half("abdomen-3mm") == half("abdomen-3mm-crop")
    assert half("lung-two-visits__3DCT_lung_baseline") == half("lung-two-visits__3DCT_lung_followup")
    assert half("phantom 3") == half("phantom 3 again")
    assert (same_scan("phantom 3", "phantom 3 unmoved"), same_scan("phantom 3", "phantom 3 again")) == (None, None)
