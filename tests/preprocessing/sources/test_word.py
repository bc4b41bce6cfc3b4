"""WORD: a zip with a password, three parts, the labels of the last part in a zip of their own."""

from pathlib import Path

import pytest
from archive_samples import encrypt_zip
from miniatures import anatomy_of, brought, ingested, rows, scan, statuses, zipped

from infra.errors import UserError
from preprocessing.sources.registry import make_source
from preprocessing.sources.word import ORGANS

PASSWORD = "of the page"
ROOT = "WORD-V0.1.0"


@pytest.fixture
def paths(tmp_path) -> tuple[str, ...]:
    """The encrypted zip with one case each for training and testing, and the zip with the test's labels."""
    label = {n: scan("abdomen", n).nifti(scan("abdomen", n).labelled(dict(enumerate(ORGANS, 1)))) for n in (0, 1)}
    files = {
        f"{ROOT}/imagesTr/word_0002.nii.gz": scan("abdomen", 0).nifti(),
        f"{ROOT}/labelsTr/word_0002.nii.gz": label[0],
        f"{ROOT}/imagesTs/word_0009.nii.gz": scan("abdomen", 1).nifti(),
    }
    tests = {"labelsTs/word_0009.nii.gz": label[1]}
    whole, last = brought(tmp_path, {f"{ROOT}.zip": zipped(files), "WORD_V0.1.0_labelsTs.zip": zipped(tests)})
    encrypt_zip(Path(whole), PASSWORD.encode())
    return whole, last


def test_the_password_comes_from_the_environment(paths, lake, settings, monkeypatch):
    source = make_source("word", archive=paths)
    with pytest.raises(
        UserError, match=r"WORD-V0.1.0.zip is encrypted; give its password in MEDDIFF_<SOURCE>_PASSWORD"
    ):
        source.cases(lake)

    monkeypatch.setenv("MEDDIFF_WORD_PASSWORD", PASSWORD)
    ingested(lake, source, settings)
    found = rows(lake)
    assert statuses(found.values()) == {"word_0002": "sealed", "word_0009": "sealed"}
    for row in found.values():
        assert anatomy_of(lake, row) >= {"liver", "spleen", "kidney_left", "small_bowel", "colon", "unknown"}
    assert PASSWORD not in str(found) + source.model_dump_json()

    again = ingested(lake, make_source("word", archive=paths), settings)
    assert (again.converted, again.unchanged) == (0, 2)


def test_a_wrong_password_ends_the_run_and_quarantines_nothing(paths, lake, settings, monkeypatch):
    monkeypatch.setenv("MEDDIFF_WORD_PASSWORD", "guessed")
    with pytest.raises(UserError, match=r"WORD-V0.1.0.zip: Bad password .*; the dataset's page tells the password"):
        ingested(lake, make_source("word", archive=paths), settings)
    assert not rows(lake)


def test_the_folders_of_the_zip_are_no_split_of_data_to_pre_train_on(paths, lake, monkeypatch):
    monkeypatch.setenv("MEDDIFF_WORD_PASSWORD", PASSWORD)
    assert [case.split for case in make_source("word", archive=paths).cases(lake)] == ["", ""]
