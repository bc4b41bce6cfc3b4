"""Collections of the Imaging Data Commons: listed from an index, pulled series by series from S3, again if changed."""

import pytest
from idc_miniature import BUCKET, RAW_DATA, Commons, slab
from miniatures import anatomy_of, ingested, rows, scan, statuses

from infra.errors import UserError
from preprocessing.anatomy import class_ids
from preprocessing.sources.registry import make_source

pytestmark = pytest.mark.server
A, B, C = "1.2.5.10", "1.2.5.11", "1.2.5.12"


def tiny(commons: Commons, **options):
    return make_source("idc:tiny", **commons.options, **options)


def liver(one) -> object:
    return one.anatomy == class_ids()["liver"]


def test_a_series_is_a_case_with_the_labels_that_refer_to_it(commons, lake, settings):
    one, other = slab(scan("abdomen", 2)), slab(scan("abdomen", 1))
    address = commons.ct(one, A, "P 1")
    commons.ct(other, B, "P 1", license_short_name="CC BY-NC 3.0")
    commons.seg(one, A, "1.2.9.1", "P 1", {"Liver": liver(one), "Tumor": one.lesion})
    commons.ct(one, C, "P-2", StudyInstanceUID="other")
    ingested(lake, tiny(commons), settings)
    found = rows(lake)
    first, second, third = sorted(found.values(), key=lambda row: (row.patient, row.anatomy == "none"))
    assert set(statuses(found.values()).values()) == {"sealed"}
    assert [row.patient for row in (first, second, third)] == ["P 1", "P 1", "P-2"]
    assert all(row.case.startswith(("P-1-", "P-2-")) for row in found.values())
    assert anatomy_of(lake, first) == {"liver", "unknown"}
    assert [row.lesion for row in (first, second, third)] == [True, False, False]
    assert [row.licence for row in (first, second, third)] == ["CC BY 4.0", "CC BY-NC 3.0", "CC BY 4.0"]
    assert first.source == "idc:tiny"
    assert first.origin[0] == f"s3://{BUCKET}/{address}/"
    assert first.citation == "https://doi.org/10.7937/tiny"
    assert "/idc-tiny/" in first.key
    assert lake.exists(f"raw/idc-tiny/{address}/objects.json")


def test_only_a_revised_series_is_pulled_again_and_a_withdrawn_one_leaves(commons, lake, settings):
    one = slab(scan("abdomen", 2))
    for uid, patient in ((A, "P-1"), (B, "P-2"), (C, "P-3")):
        commons.ct(one, uid, patient, shift=len(patient))
    ingested(lake, tiny(commons), settings)
    before = {row.patient: row for row in rows(lake).values()}
    new = commons.ct(one, B, "P-2", revision=2, shift=9)
    del commons.rows[C]
    again = ingested(lake, tiny(commons), settings)
    assert (again.converted, again.unchanged) == (1, 1)
    after = {row.patient: row for row in rows(lake).values()}
    assert set(after) == {"P-1", "P-2"}
    assert (after["P-1"].seal, after["P-1"].version) == (before["P-1"].seal, before["P-1"].version)
    assert after["P-2"].case == before["P-2"].case
    assert after["P-2"].input != before["P-2"].input
    assert after["P-2"].origin == (f"s3://{BUCKET}/{new}/",)
    assert len({key.split("/")[2] for key in lake.list("raw/idc-tiny")}) == 4

    last = ingested(lake, tiny(commons), settings)
    assert (last.converted, last.unchanged) == (0, 2)


def test_what_lies_in_raw_is_read_without_a_network(commons, lake, settings, tmp_path):
    one = slab(scan("abdomen", 2))
    commons.ct(one, A, "P-1")
    source = tiny(commons)
    (case,) = source.cases()
    source.fetch(case, lake, tmp_path / "one")
    nowhere = source.replace(mirror="http://127.0.0.1:9")
    assert len(nowhere.fetch(case, lake, tmp_path / "two").image) == len(one.hu)


def test_without_raw_a_case_leaves_no_file_behind(commons, lake, settings):
    commons.ct(slab(scan("abdomen", 2)), A, "P-1")
    ingested(lake, tiny(commons, keep_raw=False), settings)
    assert [row.status for row in rows(lake).values()] == ["sealed"]
    assert lake.list("raw") == []


def test_what_is_no_volume_is_a_row_with_its_reason_and_is_not_pulled(commons, lake, settings):
    commons.ct(slab(scan("abdomen", 2)), A, "P-1")
    commons.put("1.2.4.1", "P-1", {}, instanceCount=2)
    commons.put("1.2.4.2", "P-1", {}, instanceCount=9000, SOPClassUID=RAW_DATA)
    commons.put("1.2.4.3", "P-1", {}, instanceCount=12, SeriesDescription="Topogram 0.6")
    commons.put("1.2.4.4", "P-1", {}, instanceCount=50)
    commons.put("1.2.4.5", "P-1", {}, instanceCount=90, Modality="PT")
    ingested(lake, tiny(commons), settings)
    reasons = sorted(statuses(rows(lake).values()).values())
    assert reasons[0] == "a series of 2 images is a localizer or a fragment, not a volume"
    assert reasons[1] == "its 9000 objects are raw data (projections), not CT images"
    assert reasons[2].startswith("its description says that it is a localizer (Topogram 0.6)")
    assert reasons[3] == "sealed"
    assert "holds no object: it was moved or withdrawn" in reasons[4]
    assert len(reasons) == 5, "a PET is no CT"


def test_a_segmentation_of_another_series_is_no_label(commons, lake, settings):
    one = slab(scan("abdomen", 2))
    commons.ct(one, A, "P-1")
    commons.seg(one, "1.2.77", "1.2.9.1", "P-1", {"Liver": liver(one)})
    ingested(lake, tiny(commons), settings)
    (row,) = rows(lake).values()
    assert (row.status, row.anatomy) == ("sealed", "none")


def test_a_network_that_fails_is_tried_again_by_the_next_ingest(commons, lake, settings, monkeypatch):
    from infra import transfer
    from infra.remote import TransientError

    commons.ct(slab(scan("abdomen", 2)), A, "P-1")
    listing = transfer.fetch_listing

    def broken(remote, policy):
        raise TransientError(f"{remote.name} sends nothing; check the network and run again to resume")

    monkeypatch.setattr(transfer, "fetch_listing", broken)
    ingested(lake, tiny(commons), settings)
    assert "sends nothing" in next(iter(statuses(rows(lake).values()).values()))
    monkeypatch.setattr(transfer, "fetch_listing", listing)
    ingested(lake, tiny(commons), settings)
    assert set(statuses(rows(lake).values()).values()) == {"sealed"}


def test_an_unknown_collection_is_refused_with_near_ones():
    with pytest.raises(UserError, match="no collection 'lidc_idr' with CT; near are lidc_idri"):
        make_source("idc:lidc_idr")
    with pytest.raises(UserError, match=r"source idc: .*name a collection"):
        make_source("idc")


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"x\.parquet is no index of the Imaging Data Commons"):
        make_source("idc:tiny", index=str(tmp_path / "x.parquet"))
    with pytest.raises(UserError, match="cannot be read"):
        make_source("idc:tiny", index=str(tmp_path / "y.parquet"))
