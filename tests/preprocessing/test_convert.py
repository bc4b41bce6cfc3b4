"""One case's way: sealed with a row that says what it is, or quarantined with the reason; never half done."""

import errno
import logging

import numpy as np
import pytest
from store_samples import GEOMETRY, RECIPE, MadeSource, made_image, write_image

from infra.errors import UserError
from infra.lake import Lake, open_lake
from preprocessing import convert as module
from preprocessing.case import LabelFile
from preprocessing.convert import convert_case
from preprocessing.inputs import case_key, file_checksums, input_of
from preprocessing.store import open_case

GOLDEN = {3: "da74f56efae44b2746320b4a7945fbd0"}  # recipe version: digest of the seal


@pytest.fixture
def lake(tmp_path) -> Lake:
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def source(tmp_path) -> MadeSource:
    (tmp_path / "data").mkdir()
    return MadeSource(tmp_path / "data")


def convert(source: MadeSource, lake: Lake, number: int = 0, **changes):
    source.changes[number] = changes
    return convert_case(source.case(number), source, RECIPE, lake)


def labelled(source: MadeSource) -> dict:
    """A liver block and a lesion beside case 0, and what the case says of them."""
    anatomy, lesion = np.zeros(GEOMETRY.shape, np.uint8), np.zeros(GEOMETRY.shape, np.uint8)
    anatomy[10:20, 15:25, 20:30] = 3
    lesion[12:14, 16:20, 22:24] = 1
    write_image(source.path / "anatomy.nrrd", anatomy)
    write_image(source.path / "lesion.nrrd", lesion)
    write_image(source.path / "low_dose.nrrd", made_image(0) + np.int16(2))
    return {
        "labels": (LabelFile(path=str(source.path / "anatomy.nrrd"), classes=((3, 5),)),),
        "lesion": (str(source.path / "lesion.nrrd"),),
        "companions": (("low_dose", str(source.path / "low_dose.nrrd")),),
        "anatomy": "partial",
        "declared_regions": ("chest",),
    }


def test_a_case_becomes_a_sealed_store_and_a_row(lake, source):
    row = convert(source, lake, **labelled(source))
    assert (row.status, row.reason, row.regions, row.anatomy, row.lesion) == (
        "sealed",
        None,
        ("chest",),
        "partial",
        True,
    )
    assert row.key == f"ct/{RECIPE.fingerprint}/made/case-0/{row.input}.zarr"
    case = open_case(lake, row.key)
    assert case.geometry(0) == GEOMETRY
    assert (case.read_all("image") == made_image(0)).all()
    anatomy = case.read_all("anatomy")
    assert set(np.unique(anatomy)) == {0, 5, 119}
    assert (anatomy == 5).sum() == 1000
    assert case.read_all("lesion").sum() == 2 * 4 * 2
    assert (case.read_all("low_dose") == made_image(0) + 2).all()
    assert case.record.licence == "CC0-1.0"
    assert set(case.record.checksums) == {"image/0", "labels/0", "lesion/0", "companions/low_dose"}


def test_every_region_has_its_thumbnails(lake, source):
    row = convert(source, lake, **labelled(source))
    case = open_case(lake, row.key)
    image, anatomy = (case.thumbnail("chest", name) for name in ("image", "anatomy"))
    assert image.shape == anatomy.shape == (8, 8, 8)
    assert 5 in anatomy
    assert abs(float(image.mean()) - float(case.read_all("image").mean())) < 5


def test_a_case_without_labels_has_an_unknown_body_and_says_why_it_has_no_region(lake, source):
    row = convert(source, lake)
    case = open_case(lake, row.key)
    assert set(np.unique(case.read_all("anatomy"))) == {0, 119}
    assert row.regions == ()
    assert any(finding.startswith("no region") for finding in case.record.findings)


def test_the_bytes_of_a_whole_conversion_are_pinned(lake, source):
    """A change of code that changes bytes must raise the recipe's version."""
    assert convert(source, lake, **labelled(source)).seal == GOLDEN[RECIPE.version]


def test_the_same_input_is_not_converted_again(lake, source, monkeypatch):
    first = convert(source, lake)
    monkeypatch.setattr(module, "read_image", None)
    assert convert(source, lake) == first


def test_changed_files_and_changed_meaning_are_other_inputs(source):
    def input_now(**changes) -> str:
        source.changes[0] = changes
        case = source.case(0)
        return input_of(case, file_checksums(case))

    values = labelled(source)
    before = input_now(**values)
    other = (values["labels"][0].replace(classes=((3, 6),)),)
    assert len({before, input_now(**values | {"labels": other}), input_now()}) == 3
    assert input_now(**values, version="v2") == before
    write_image(source.path / "made-0.nrrd", made_image(7))
    assert input_now(**values) != before


def test_bad_cases_are_quarantined_with_their_reason_and_the_lake_stays_empty(lake, source):
    (source.path / "text.nii.gz").write_text("no image")
    rows = [
        convert(source, lake, 0, image=(str(source.path / "text.nii.gz"),)),
        convert(source, lake, 1, version="gone"),
        convert(source, lake, 2, problem="two images in one case"),
    ]
    assert {row.status for row in rows} == {"quarantined"}
    assert "text.nii.gz" in rows[0].reason
    assert rows[1].reason == "case-1 is not there any more"
    assert rows[2].reason == "two images in one case"
    assert lake.list("ct") == []


def test_a_reason_names_no_folder_of_this_machine(lake, source):
    row = convert(source, lake, problem=f"{source.path}/x.nii is odd")
    assert row.reason == "x.nii is odd"


def test_what_nobody_expected_is_quarantined_with_type_and_traceback(lake, source, caplog):
    with caplog.at_level(logging.ERROR):
        row = convert(source, lake, version="strange")
    assert row.reason == "unexpected: ZeroDivisionError: nobody expects this"
    assert "Traceback" in caplog.text


def test_no_space_ends_the_run_instead_of_refusing_the_case(lake, source, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_case", full)
    with pytest.raises(UserError, match=r"no space is left for made/case-0 in .*run again"):
        convert(source, lake)
    with pytest.raises(UserError, match="no space is left"):
        convert(source, lake, version="full")


def test_a_lake_that_cannot_be_written_ends_the_run(lake, source, monkeypatch):
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "write_case", denied)
    with pytest.raises(UserError, match=r"cannot be written .*Permission denied.*made/case-0 waits"):
        convert(source, lake)


def test_odd_names_stay_inside_their_folder(source):
    case = source.case(0).replace(id="a b/c?d#e%f")
    assert case_key(RECIPE, case, "0" * 16).endswith("/made/a b/c%3Fd%23e%25f/" + "0" * 16 + ".zarr")


def test_origins_are_stored_without_the_users_path(lake, source):
    row = convert(source, lake)
    assert row.origin[0].endswith(":made-0.nrrd")
    assert str(source.path) not in row.origin[0]


@pytest.mark.server
def test_a_bucket_gets_the_same_bytes(lake, source, s3_bucket):
    remote = open_lake(f"{s3_bucket}/lake")
    assert convert(source, remote).seal == convert(source, lake).seal
