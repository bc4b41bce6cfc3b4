"""FLARE22 as it is served: images and labels of 50 cases in one zip; what the challenge gives out is brought."""

from miniatures import anatomy_of, brought, ingested, rows, scan, served, statuses, zipped

from preprocessing.sources.flare22 import ORGANS
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def flare_zip() -> bytes:
    """One case with every organ that the phantom has."""
    abdomen = scan("abdomen")
    return zipped(
        {
            "FLARE22Train/images/FLARE22_Tr_0001_0000.nii.gz": abdomen.nifti(),
            "FLARE22Train/labels/FLARE22_Tr_0001.nii.gz": abdomen.nifti(abdomen.labelled(ORGANS)),
        }
    )


def test_the_labelled_cases_are_pulled(server, lake, settings):
    source = make_source("flare22", **served(server, {"FLARE22Train.zip": flare_zip()}))
    ingested(lake, source, settings)
    (row,) = rows(lake).values()
    assert (row.case, row.status, row.anatomy, row.licence) == (
        "FLARE22_Tr_0001",
        "sealed",
        "partial",
        "research only",
    )
    assert {"liver", "kidney_right", "spleen", "kidney_left", "unknown"} <= anatomy_of(lake, row)
    asked = len(server.log)
    assert ingested(lake, source, settings).unchanged == 1
    assert len(server.log) == asked


def test_what_the_challenge_gives_out_is_read_where_it_is_brought(lake, settings, tmp_path):
    zips = {"FLARE22_UnlabeledCase1-1000.zip": zipped({"images/Case_00001_0000.nii.gz": scan("abdomen", 1).nifti()})}
    ingested(lake, make_source("flare22", archive=brought(tmp_path, zips)), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"Case_00001": "sealed"}
    assert not any("label" in finding for finding in open_case(lake, found["Case_00001"].key).record.findings)
