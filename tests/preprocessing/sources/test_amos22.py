"""AMOS22 as it is served: CT and MR in one zip, `__MACOSX` beside them, and zips of CT without labels."""

import pytest
from miniatures import anatomy_of, brought, ingested, rows, scan, served, statuses, zipped

from infra.errors import UserError
from preprocessing.sources.registry import make_source


def amos_zip() -> bytes:
    """A labelled CT, an MR, a test CT."""
    abdomen = scan("abdomen")
    values = abdomen.labelled({1: "spleen", 2: "kidney_right", 3: "kidney_left", 6: "liver"})
    values[(values == 0) & (abdomen.anatomy > 0)] = 15
    return zipped(
        {
            "amos22/dataset.json": b"{}",
            "amos22/imagesTr/amos_0001.nii.gz": abdomen.nifti(),
            "__MACOSX/amos22/imagesTr/._amos_0001.nii.gz": b"\x00\x05\x16\x07",
            "amos22/labelsTr/amos_0001.nii.gz": abdomen.nifti(values),
            "amos22/imagesVa/amos_0600.nii.gz": b"an MR",
            "amos22/labelsVa/amos_0600.nii.gz": b"its labels",
            "amos22/imagesTs/amos_0500.nii.gz": scan("abdomen", 1).nifti(),
        }
    )


def test_ct_is_ingested_and_mr_is_refused_by_name(server, lake, settings):
    source = make_source("amos22", **served(server, {"amos22.zip": amos_zip()}))
    ingested(lake, source, settings)
    found = rows(lake)
    assert statuses(found.values()) == {
        "amos_0001": "sealed",
        "amos_0500": "sealed",
        "amos_0600": "AMOS22 numbers 501 to 600 are MR, not CT; only CT can be ingested",
    }
    assert anatomy_of(lake, found["amos_0001"]) == {"spleen", "kidney_right", "kidney_left", "liver", "unknown"}
    assert (found["amos_0001"].anatomy, found["amos_0500"].anatomy) == ("partial", "none")
    assert found["amos_0001"].licence == "CC BY 4.0"

    asked = len(server.log)
    again = ingested(lake, source, settings)
    assert (again.converted, again.unchanged) == (0, 3)
    assert len(server.log) == asked


def test_the_zips_without_labels_are_brought_and_their_damaged_images_named(lake, settings, tmp_path):
    with pytest.raises(UserError, match=r"amos22_unlabeled_ct_5000_5399\.zip.*--archive"):
        ingested(lake, make_source("amos22-unlabelled"), settings)
    zips = {
        "amos22_unlabeled_ct_5000_5399.zip": {"amos_unlabeled_ct_5000_5399/amos_5000.nii.gz": scan("abdomen").nifti()},
        "amos22_unlabeled_ct_5400_5899.zip": {"amos_unlabeled_ct_5400_5899/amos_5437.nii.gz": b"damaged"},
    }
    given = brought(tmp_path, {name: zipped(members) for name, members in zips.items()})
    ingested(lake, make_source("amos22-unlabelled", archive=given), settings)
    found = statuses(rows(lake).values())
    assert found["amos_5000"] == "sealed"
    assert "damaged in the published zip" in found["amos_5437"]
