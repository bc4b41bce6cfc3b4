"""Raw files go only where it is certain that no kept data version is made of them."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.lake import Lake, open_lake
from preprocessing.garbage import References
from preprocessing.garbage_raw import raw_garbage
from preprocessing.sources.idc import WHOLE

SERIES = "6f3c2f0e-1a2b-4c3d-8e9f-0a1b2c3d4e5f"
OLD_SERIES = "11111111-1a2b-4c3d-8e9f-0a1b2c3d4e5f"


@pytest.fixture
def lake(tmp_path) -> Lake:
    return open_lake(str(tmp_path))


def pulled(lake, *keys, days_ago=30):
    for key in keys:
        lake.write(key, b"12345")
        at = time.time() - days_ago * 86400
        os.utime(Path(lake.url, key), (at, at))


def garbage(lake, **origins):
    references = References(origins={source.replace("_", "-"): set(some) for source, some in origins.items()})
    return {thing.key: thing for thing in raw_garbage(lake, references, datetime.now(UTC) - timedelta(days=7))}


def test_an_archive_goes_when_no_kept_case_is_in_it_and_a_newer_one_is_there(lake):
    pulled(lake, "raw/word/1/W.zip", "raw/word/1/W.zip.sha256", "raw/word/1/W.zip.index.json", days_ago=60)
    pulled(lake, "raw/word/2/W.zip", "raw/word/2/W.zip.sha256")
    newest = "lake:raw/word/2/W.zip/images/a.nii.gz"
    found = garbage(lake, word=[newest])
    assert set(found) == {"raw/word/1"}
    assert (found["raw/word/1"].objects, found["raw/word/1"].bytes) == (3, 15)
    assert not garbage(lake, word=[newest, "lake:raw/word/1/W.zip/images/b.nii.gz"]), "an older kept version reads it"


def test_a_table_and_the_list_of_cases_stay_while_they_are_the_newest_of_their_name(lake):
    pulled(lake, "raw/word/t1/table.csv", "raw/word/c1/cases.json.gz", days_ago=60)
    pulled(lake, "raw/word/2/W.zip")
    assert not garbage(lake, word=["lake:raw/word/2/W.zip/a.nii.gz"])
    pulled(lake, "raw/word/t2/table.csv", "raw/word/c2/cases.json.gz")
    assert set(garbage(lake, word=["lake:raw/word/2/W.zip/a.nii.gz"])) == {"raw/word/t1", "raw/word/c1"}


def test_a_source_without_any_case_goes_as_a_whole(lake):
    pulled(lake, "raw/word/2/W.zip", "raw/word/t/table.csv", "raw/chaos/1/C.zip")
    assert set(garbage(lake, chaos=["lake:raw/chaos/1/C.zip/a"])) == {"raw/word/2", "raw/word/t"}


def test_series_of_the_imaging_data_commons_are_known_by_the_folder_of_their_url(lake):
    for series in (SERIES, OLD_SERIES):
        pulled(lake, f"raw/idc-nlst/{series}/1.dcm", f"raw/idc-nlst/{series}/{WHOLE}")
    assert set(garbage(lake, idc_nlst=[f"s3://idc-open-data/{SERIES}/"])) == {f"raw/idc-nlst/{OLD_SERIES}"}


def test_a_file_behind_a_url_of_its_own_stays_in_its_newest_version(lake):
    pulled(lake, "raw/ct-rate/1/train/a.nii.gz", days_ago=60)
    pulled(lake, "raw/ct-rate/2/train/a.nii.gz", "raw/ct-rate/1b/train/b.nii.gz")
    origins = ["https://host/train/a.nii.gz", "https://host/train/b.nii.gz#sha256=0"]
    assert set(garbage(lake, ct_rate=origins)) == {"raw/ct-rate/1"}


def test_phantoms_of_parameters_that_no_version_has_go(lake):
    pulled(lake, "raw/phantom/p1/phantom-0000-0/ct.nii.gz", "raw/phantom/p2/phantom-0000-0/ct.nii.gz")
    assert set(garbage(lake, phantom=["lake:raw/phantom/p2/phantom-0000-0/ct.nii.gz"])) == {"raw/phantom/p1"}


def test_what_was_pulled_within_the_grace_period_stays(lake):
    pulled(lake, "raw/word/1/W.zip", days_ago=3)
    assert not garbage(lake)


def test_what_is_not_in_the_form_of_a_version_is_left_alone(lake):
    pulled(lake, "raw/note.txt", "raw/word/note.txt")
    assert not garbage(lake)
