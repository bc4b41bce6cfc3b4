"""TotalSegmentator as it is served: masks of all classes, most of them empty, and a table that begins with a BOM."""

import numpy as np
from miniatures import anatomy_of, brought, ingested, rows, scan, served, statuses, zipped

from preprocessing.anatomy import BODY, class_names
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case

COLUMNS = "image_id;age;gender;institute;study_type;split;manufacturer;scanner_model;kvp;pathology;pathology_location"
ORGANS = [class_names()[id_] for id_ in range(1, BODY)]


def case_files(name: str, view: str, patient=0, organs=ORGANS) -> dict[str, bytes]:
    """`sXXXX/…` with one mask for each of the organs; a mask of an organ that is not in view is empty."""
    shown = scan(view, patient)
    present = {class_names()[int(id_)] for id_ in np.unique(shown.anatomy) if 0 < id_ < BODY}
    empty = shown.nifti(np.zeros_like(shown.anatomy))
    files = {f"{name}/ct.nii.gz": shown.nifti()}
    for organ in organs:
        mask = shown.nifti(shown.labelled({1: organ})) if organ in present else empty
        files[f"{name}/segmentations/{organ}.nii.gz"] = mask
    return files


def table(**splits: str) -> bytes:
    """`meta.csv` with these splits."""
    lines = [f"{name};61;m;A;ct abdomen;{split};siemens;SOMATOM;120;no_pathology;" for name, split in splits.items()]
    return "\r\n".join(["\ufeff" + COLUMNS, *lines, ""]).encode()


def test_masks_of_all_classes_make_a_full_anatomy_and_the_table_makes_the_split(server, lake, settings):
    members = {"meta.csv": table(s0011="train", s0513="test")}
    members |= case_files("s0011", "abdomen") | case_files("s0513", "abdomen", 1, ["liver", "spleen"])
    archive = {"Totalsegmentator_dataset_small_v201.zip": zipped(members)}
    ingested(lake, make_source("totalsegmentator-small", **served(server, archive)), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"s0011": "sealed", "s0513": "sealed"}
    assert [(row.anatomy, row.split, row.licence) for row in found.values()] == [
        ("full", "train", "CC BY 4.0"),
        ("partial", "test", "CC BY 4.0"),
    ]
    assert {"liver", "spleen", "body"} <= anatomy_of(lake, found["s0011"])
    assert "unknown" not in anatomy_of(lake, found["s0011"]), "an empty mask says that an organ is not there"
    findings = open_case(lake, found["s0513"].key).record.findings
    assert any("humerus_right" in finding for finding in findings)
    assert any("vertebrae" in finding for finding in findings)
    assert not any("issue" in finding for finding in open_case(lake, found["s0011"].key).record.findings)

    asked = len(server.log)
    again = ingested(lake, make_source("totalsegmentator-small", **served(server, archive)), settings)
    assert (again.converted, again.unchanged) == (0, 2)
    assert len(server.log) == asked


def test_an_older_release_in_a_folder_is_read_with_what_it_lacks_and_warned_of(lake, settings, tmp_path):
    members = {"meta.csv": table(s0864="val")} | case_files("s0864", "abdomen", organs=["liver", "spleen"])
    brought(tmp_path / "Totalsegmentator_dataset", members)
    folder = str(tmp_path / "Totalsegmentator_dataset")
    ingested(lake, make_source("totalsegmentator", archive=(folder,)), settings)
    row = rows(lake)["s0864"]
    assert (row.status, row.anatomy, row.split) == ("sealed", "partial", "val")
    assert anatomy_of(lake, row) == {"liver", "spleen", "unknown"}
    assert any("2.0.0" in finding for finding in open_case(lake, row.key).record.findings)
