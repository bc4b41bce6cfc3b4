"""HaN-Seg as it is served: NRRD, an MR beside each CT, a file an organ where it is in view; kept out of buckets."""

import numpy as np
import pytest
from miniatures import anatomy_of, ingested, rows, scan, served, statuses, zipped

from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.selection import Selection
from preprocessing.sources.registry import make_source


def han_zip() -> bytes:
    """One case: spinal cord, part of the brain as the brainstem, and no thyroid in view."""
    head = scan("head_neck")
    brain = head.labelled({1: "brain"})
    brain[: np.argwhere(brain).mean(axis=0).astype(int)[0]] = 0
    place = "HaN-Seg/set_1/case_01/case_01"
    return zipped(
        {
            "HaN-Seg/README.md": b"",
            "HaN-Seg/set_1/OAR_data.csv": b"",
            f"{place}_IMG_CT.nrrd": head.nrrd(),
            f"{place}_IMG_MR_T1.nrrd": b"an MR",
            f"{place}_OAR_SpinalCord.seg.nrrd": organ(head.labelled({1: "spinal_cord"}), "SpinalCord"),
            f"{place}_OAR_Brainstem.seg.nrrd": organ(brain, "Brainstem"),
        }
    )


def organ(mask: np.ndarray, name: str) -> bytes:
    """A mask as Slicer saves a segment."""
    return scan("head_neck").nrrd(mask, Segment0_ID="Segment_1", Segment0_Name=name, Segment0_LabelValue="1")


def test_the_organs_in_view_are_read_and_the_mr_is_refused(server, lake, settings):
    source = make_source("han-seg", **served(server, {"HaN-Seg.zip": han_zip()}))
    ingested(lake, source, settings)
    found = rows(lake)
    assert statuses(found.values()) == {
        "case_01": "sealed",
        "case_01_MR_T1": "an MR beside its CT; only CT can be ingested",
    }
    row = found["case_01"]
    assert anatomy_of(lake, row) == {"spinal_cord", "unknown"}
    assert (row.anatomy, row.regions, row.licence) == ("partial", ("head_neck",), "CC BY-NC-ND 4.0")

    asked = len(server.log)
    assert ingested(lake, source, settings).unchanged == 2
    assert len(server.log) == asked


def test_changed_copies_go_to_a_bucket_only_where_the_user_says_so(server, s3_bucket, settings):
    bucket = open_lake(s3_bucket)
    source = make_source("han-seg", **served(server, {"HaN-Seg.zip": han_zip()}))
    with pytest.raises(UserError, match=r"CC BY-NC-ND 4\.0.*--publish-no-derivatives"):
        ingested(bucket, source, settings)
    assert not server.log, "nothing is pulled of what may not be kept"

    ingested(bucket, source, settings, selection=Selection(publish_no_derivatives=True))
    assert rows(bucket)["case_01"].status == "sealed"
    with pytest.raises(UserError, match="no commercial use"):
        ingested(bucket, source, settings, selection=Selection(licence_policy="commercial"))
