"""Duplicates: the same scan under two names is found, other scans are not, and test data stays out of training."""

import numpy as np
import pytest
from scipy import ndimage
from store_samples import RECIPE, made_image

from infra.lake import open_lake
from preprocessing.duplicates import clusters, signature
from preprocessing.manifest import ManifestRow, commit
from preprocessing.split import patient_split

SHAPE = (60, 70, 80)
IMAGE = made_image(0, SHAPE)


def sign(image: np.ndarray) -> str:
    return signature(image, image > -500)


def group(*images: np.ndarray) -> list[str]:
    return clusters([str(n) for n in range(len(images))], [sign(image) for image in images])


def smooth(seed: int) -> np.ndarray:
    lumps = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, SHAPE), 5) * 2500
    return np.where(IMAGE > -500, lumps, -1000).astype(np.int16)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image + np.random.default_rng(9).integers(-20, 20, image.shape, dtype=np.int16),
        lambda image: np.pad(image, ((0, 0), (8, 5), (3, 9)), constant_values=-1000),
        lambda image: ndimage.zoom(image, 0.8, order=1),
    ],
    ids=["noise", "more air around", "resampled"],
)
def test_the_same_scan_under_two_names_is_one_cluster(change):
    assert group(smooth(0), smooth(1), change(smooth(0)).astype(np.int16)) == ["0", "1", "0"]


def test_different_scans_are_clusters_of_their_own():
    assert group(*(smooth(seed) for seed in range(6))) == list("012345")


def test_the_cluster_is_named_after_its_smallest_member_in_any_order():
    signatures = {"b": sign(smooth(0)), "a": sign(smooth(0)), "c": sign(smooth(1))}
    for order in ("bac", "cab", "abc"):
        answer = dict(zip(order, clusters(list(order), [signatures[name] for name in order]), strict=True))
        assert answer == {"a": "a", "b": "a", "c": "c"}


def test_cases_without_a_signature_are_alone():
    assert clusters(["x", "y"], ["", ""]) == ["x", "y"]
    assert clusters([], []) == []


def test_a_signature_is_small_text_and_an_empty_body_has_none_alike():
    assert len(sign(IMAGE)) < 6000
    assert sign(np.full(SHAPE, -1000, np.int16)) == sign(np.full(SHAPE, -1000, np.int16))


def row(source: str, patient: str, image: np.ndarray, status: str = "sealed") -> ManifestRow:
    return ManifestRow(source=source, case=patient, patient=patient, status=status, signature=sign(image))  # pyright: ignore


def test_training_cases_that_duplicate_a_test_case_are_excluded_in_any_order(tmp_path):
    names = [str(n) for n in range(200)]
    test = next(n for n in names if patient_split("a", n, RECIPE.split) == "test")
    train = next(n for n in names if patient_split("b", n, RECIPE.split) == "train")
    rows = {"a": [row("a", test, smooth(0))], "b": [row("b", train, smooth(0)), row("b", "other", smooth(1))]}
    for order in ("ab", "ba"):
        lake = open_lake(str(tmp_path / order))
        for source in order:
            manifest = commit(lake, RECIPE, {source: rows[source]})
        splits = {key: found.split for key, found in manifest.by_case().items()}
        assert splits["a", test] == "test"
        assert splits["b", train] == "excluded"
        assert splits["b", "other"] == patient_split("b", "other", RECIPE.split)


def test_a_quarantined_test_case_excludes_nobody(tmp_path):
    names = [str(n) for n in range(200)]
    test = next(n for n in names if patient_split("a", n, RECIPE.split) == "test")
    train = next(n for n in names if patient_split("a", n, RECIPE.split) == "train")
    rows = [row("a", test, smooth(0), "quarantined"), row("a", train, smooth(0))]
    manifest = commit(open_lake(str(tmp_path)), RECIPE, {"a": rows})
    assert manifest.by_case()["a", train].split == "train"
