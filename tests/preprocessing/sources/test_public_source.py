"""What every public data set can: pulled or brought, mirrored, limited, corrected, changed, dropped after use."""

import shutil
import threading
from hashlib import sha256

import pytest
from faulty_server import Fault, File
from miniatures import brought, ingested, rows, scan, served, seven_zipped, statuses, tarred, zipped

from infra.errors import UserError
from infra.lake import open_lake
from infra.remote import Remote, TransferError
from preprocessing.selection import Selection
from preprocessing.sources.registry import make_source

TAR = "Task09_Spleen.tar"
URL = "/data/Task09_Spleen.tar"


def spleen_files(numbers=(2, 3), **changed) -> dict[str, bytes]:
    files = {}
    for n in numbers:
        abdomen = scan("abdomen", n % 3)
        image, label = abdomen.nifti(), abdomen.nifti(abdomen.labelled({1: "spleen"}))
        files[f"Task09_Spleen/imagesTr/spleen_{n}.nii.gz"] = changed.get(f"image_{n}", image)
        files[f"Task09_Spleen/labelsTr/spleen_{n}.nii.gz"] = label
    return files


def unpinned(server, data: bytes, etag: str):
    """The task behind a url without declared checksums: its version is what the server says."""
    server.files[URL] = File(data, etag=etag)
    return make_source("msd-spleen", files=(Remote(url=server.url(URL)),))


@pytest.mark.parametrize("unpacked", [False, True])
def test_an_archive_that_a_user_brings_is_read_where_it_is(tmp_path, lake, settings, unpacked):
    files = spleen_files()
    given = brought(tmp_path / "mine", files if unpacked else {"spleen.tar": tarred(files)})
    path = str(tmp_path / "mine") if unpacked else given[0]
    ingested(lake, make_source("msd-spleen", archive=(path,)), settings)
    assert statuses(rows(lake).values()) == {"spleen_2": "sealed", "spleen_3": "sealed"}
    assert not lake.list("raw/"), "nothing is copied"
    assert str(tmp_path) not in str(rows(lake)), "where it lies on this machine is nobody's business"
    again = ingested(lake, make_source("msd-spleen", archive=(path,)), settings)
    assert (again.converted, again.unchanged) == (0, 2)


def test_what_a_user_brings_must_be_what_the_host_published(tmp_path, lake, settings):
    (path,) = brought(tmp_path, {TAR: tarred(spleen_files([2]))})
    with pytest.raises(UserError, match=r"Task09_Spleen.tar has md5 \w+, declared is 410d4a30"):
        make_source("msd-spleen", archive=(path,)).cases(lake)


def test_another_release_needs_a_line_in_sources_toml(tmp_path, lake, settings):
    files = {name.replace("imagesTr", "images").replace("labelsTr", "masks"): data
             for name, data in spleen_files([2]).items()}  # fmt: skip
    (path,) = brought(tmp_path, {"release2.tar": tarred(files)})
    with pytest.raises(UserError, match="none of its 2 files is an image of its layout"):
        make_source("msd-spleen", archive=(path,)).cases(lake)
    settings.home.mkdir(parents=True, exist_ok=True)
    (settings.home / "sources.toml").write_text(
        "[msd-spleen]\nlicence = 'CC BY 4.0'\n"
        "[msd-spleen.layout]\nimage = 'images/(?P<case>spleen_\\d+)\\.nii\\.gz$'\nlabelled = []\n"
        "[[msd-spleen.layout.labels]]\npath = 'masks/{case}.nii.gz'\nclasses = {1 = 'spleen'}\n"
    )
    (case,) = make_source("msd-spleen", archive=(path,)).cases(lake)
    assert case.labels[0].path.endswith("masks/spleen_2.nii.gz")
    assert case.licence == "CC BY 4.0"


def test_a_mirror_has_the_same_files_under_the_same_names(server, lake, settings):
    data = tarred(spleen_files([2]))
    server.files["/mirror/" + TAR] = File(data)
    source = make_source("msd-spleen", mirror=server.url("/mirror"))
    with pytest.raises(TransferError, match="declared is 410d4a301da4e5b2f6f86ec3ddba524e"):
        source.cases(lake)
    assert not lake.list("raw/"), "wrong bytes never look whole"
    declared = (Remote(url="https://elsewhere.example/" + TAR, sha256=sha256(data).hexdigest()),)
    assert len(make_source("msd-spleen", mirror=server.url("/mirror"), files=declared).cases(lake)) == 1


def test_only_the_changed_added_and_withdrawn_cases_of_a_new_archive_are_converted(server, lake, settings):
    other = scan("abdomen", 1).nifti()
    first = unpinned(server, zipped(spleen_files([2, 3, 4])), '"1"')
    ingested(lake, first, settings)
    before = rows(lake)
    second = unpinned(server, zipped(spleen_files([2, 3, 5], image_3=other)), '"2"')
    done = ingested(lake, second, settings)
    assert (done.converted, done.unchanged) == (2, 1), "spleen_3 has other bytes, spleen_5 is new"
    after = rows(lake)
    assert sorted(after) == ["spleen_2", "spleen_3", "spleen_5"]
    assert after["spleen_3"].input != before["spleen_3"].input
    assert lake.exists(f"{before['spleen_4'].key}/zarr.json"), "a withdrawn case stays readable"


def test_without_keep_raw_nothing_pulled_stays_and_the_next_run_still_knows(server, lake, settings):
    data = tarred(spleen_files(), "w:gz")
    server.files[URL] = File(data, etag='"1"')
    source = make_source("msd-spleen", files=(Remote(url=server.url(URL)),), keep_raw=False)
    ingested(lake, source, settings)
    assert statuses(rows(lake).values()) == {"spleen_2": "sealed", "spleen_3": "sealed"}
    assert [name for name in lake.list("raw/") if name.endswith(".tar")] == []
    assert not list((settings.home / "unpacked").rglob("*.nii.gz"))
    sent = sum(asked.sent for asked in server.log)
    again = ingested(lake, make_source("msd-spleen", files=(Remote(url=server.url(URL)),), keep_raw=False), settings)
    assert (again.converted, again.unchanged) == (0, 2)
    assert sum(asked.sent for asked in server.log) - sent < len(data) / 2, "one small request"


def test_a_limit_takes_the_same_cases_every_time_and_withdraws_none(server, lake, settings):
    options = served(server, {TAR: tarred(spleen_files([2, 3, 4]))})
    ingested(lake, make_source("msd-spleen", **options), settings, selection=Selection(limit=1))
    (first,) = rows(lake)
    again = ingested(lake, make_source("msd-spleen", **options), settings, selection=Selection(limit=1))
    assert (again.converted, list(rows(lake))) == (0, [first])
    ingested(lake, make_source("msd-spleen", **options), settings, selection=Selection(limit=2))
    assert first in rows(lake)
    assert len(rows(lake)) == 2


def test_a_commercial_user_gets_no_research_data(tmp_path, lake, settings):
    (path,) = brought(tmp_path, {"mine.tar": tarred(spleen_files([2]))})
    source = make_source("msd-spleen", archive=(path,), licence="CC BY-NC 4.0")
    commercial = Selection(licence_policy="commercial")
    with pytest.raises(
        UserError, match=r"source msd-spleen is left out: its licence 'CC BY-NC 4\.0' allows no commercial"
    ):
        ingested(lake, source, settings, selection=commercial)
    ingested(lake, make_source("msd-spleen", archive=(path,)), settings, selection=commercial)
    assert statuses(rows(lake).values()) == {"spleen_2": "sealed"}


def test_archives_in_archives_and_solid_ones_are_read(tmp_path, lake, settings):
    inner = zipped(spleen_files([2]))
    given = brought(
        tmp_path, {"outer.tar": tarred({"deep/inner.zip": inner}), "all.7z": seven_zipped(spleen_files([3]))}
    )
    ingested(lake, make_source("msd-spleen", archive=given), settings)
    assert statuses(rows(lake).values()) == {"spleen_2": "sealed", "spleen_3": "sealed"}
    assert not list((settings.home / "unpacked").rglob("*.nii.gz")), "what was unpacked is gone after the ingest"


def test_an_archive_goes_through_a_bucket_as_well(server, s3_bucket, settings):
    bucket = open_lake(s3_bucket)
    options = served(server, {TAR: tarred(spleen_files([2]))})
    ingested(bucket, make_source("msd-spleen", **options), settings)
    assert statuses(rows(bucket).values()) == {"spleen_2": "sealed"}
    assert [name.rpartition("/")[2] for name in bucket.list("raw/") if name.endswith(".tar")] == [TAR]


def test_a_damaged_member_costs_its_own_case(tmp_path, lake, settings):
    files = spleen_files([2, 3], image_3=scan("abdomen", 0).nifti()[:5000])
    (path,) = brought(tmp_path, {"mine.tar": tarred(files)})
    ingested(lake, make_source("msd-spleen", archive=(path,)), settings)
    found = rows(lake)
    assert found["spleen_2"].status == "sealed"
    assert found["spleen_3"].status == "quarantined"
    assert "spleen_3.nii.gz" in (found["spleen_3"].reason or "")


def test_an_archive_that_goes_away_is_named(tmp_path, lake, settings):
    (path,) = brought(tmp_path, {"mine.tar": tarred(spleen_files([2]))})
    source = make_source("msd-spleen", archive=(path,))
    (case,) = source.cases(lake)
    shutil.move(path, tmp_path / "elsewhere.tar")
    with pytest.raises(Exception, match="is not there any more; list the source again"):
        source.fetch(case, lake, tmp_path / "scratch")


def faults(data: bytes) -> dict[str, list[Fault]]:
    """What a server may do before it behaves."""
    half = len(data) // 2
    return {
        "drops the connection": [Fault(keep=half), Fault(keep=10)],
        "is overloaded": [Fault(status=503, headers={"Retry-After": "0"}), Fault(status=429)],
        "truncates": [Fault(keep=half, length=half)],
        "lies about the length": [Fault(length=len(data) + 100, keep=half)],
        "sends more than it has": [Fault(extra=b"more", no_length=True)],
        "sends rubbish once": [Fault(shift=7), Fault(ignore_range=True, keep=100)],
    }


@pytest.mark.parametrize("fault", list(faults(b"")))
def test_whatever_the_server_does_the_right_bytes_come_in_or_a_named_error(fault, server, lake, settings):
    data = tarred(spleen_files([2]))
    options = served(server, {TAR: data})
    server.faults[f"/{TAR}"] = faults(data)[fault]
    source = make_source("msd-spleen", **options)
    try:
        cases = source.cases(lake)
    except TransferError as error:
        assert TAR in str(error)  # noqa: PT017 - some faults are overcome, some are not
        assert not [name for name in lake.list("raw/") if name.endswith(".tar")]
        cases = make_source("msd-spleen", **options).cases(lake)
    (key,) = [name for name in lake.list("raw/") if name.endswith(".tar")]
    assert lake.read(key) == data
    assert [case.id for case in cases] == ["spleen_2"]


def test_a_file_that_changes_midway_is_never_spliced(server, lake, settings):
    old, new = tarred(spleen_files([2])), tarred(spleen_files([3]))
    server.files[URL] = File(old, etag='"old"')
    turn = Fault(keep=len(old) // 2)
    server.faults[URL] = [Fault(), turn, Fault(before=lambda: server.files.update({URL: File(new, etag='"new"')}))]
    source = make_source("msd-spleen", files=(Remote(url=server.url(URL)),))
    assert [case.id for case in source.cases(lake)] in (["spleen_2"], ["spleen_3"])
    (key,) = [name for name in lake.list("raw/") if name.endswith(".tar")]
    assert lake.read(key) in (old, new)


def test_two_runs_at_once_pull_an_archive_once(server, lake, settings):
    options = served(server, {TAR: tarred(spleen_files([2]))})
    listed = []
    runs = [threading.Thread(target=lambda: listed.append(make_source("msd-spleen", **options).cases(lake)))
            for _ in range(3)]  # fmt: skip
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(listed) == 3
    assert listed[0] == listed[1] == listed[2]
    assert len([asked for asked in server.log if asked.status == 200]) == 1


def test_what_a_policy_refused_comes_in_when_the_policy_allows_it(tmp_path, lake, settings, monkeypatch):
    (path,) = brought(tmp_path, {"mine.tar": tarred(spleen_files([2]))})
    source = make_source("msd-spleen", archive=(path,), licence="CC BY-NC 4.0")
    monkeypatch.setattr(Selection, "require", lambda *_: None)  # as where each case has a licence of its own
    ingested(lake, source, settings, selection=Selection(licence_policy="commercial"))
    assert "allows no commercial use" in statuses(rows(lake).values())["spleen_2"]
    again = ingested(lake, source, settings, selection=Selection(licence_policy="commercial"))
    assert again.unchanged == 1
    ingested(lake, source, settings)
    assert statuses(rows(lake).values()) == {"spleen_2": "sealed"}
