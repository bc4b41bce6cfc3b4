"""The phantom as a source: a cheap listing, files on request, the same bytes for the same seed."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from infra.lake import open_lake
from preprocessing.case import CaseError
from preprocessing.sources.base import Source
from preprocessing.sources.phantom import PhantomSource
from preprocessing.sources.phantom.broken import BROKEN
from preprocessing.sources.phantom.patient import draw_scan

TINY = PhantomSource(patients=12, resolution="tiny", broken=8)


SCRATCH = Path("/nowhere")  # a lake in a folder needs none


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return open_lake(str(tmp_path_factory.mktemp("phantom") / "lake"))


@pytest.fixture(scope="module")
def fetched(lake):
    """One fetched case per format."""
    firsts = {}
    for case in TINY.cases():
        if case.id.startswith("phantom-"):
            index, visit = (int(part) for part in case.id.split("-")[1:])
            firsts.setdefault(draw_scan(0, index, visit, "tiny").format, case)
    assert set(firsts) == {"nii.gz", "nii", "dicom", "nrrd", "mha"}
    return {name: TINY.fetch(case, lake, SCRATCH) for name, case in firsts.items()}


def read(case_files):
    names = list(case_files)
    image = SimpleITK.ReadImage(names if len(names) > 1 else names[0])
    return SimpleITK.GetArrayFromImage(image), image


def sums(case):
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in case.origin]


def test_it_is_a_source_that_travels_to_workers():
    assert isinstance(TINY, Source)
    assert pickle.loads(pickle.dumps(TINY)) == TINY
    assert TINY.info.cases == len(TINY.cases()) == 13 + 8


def test_listing_is_stable_and_grows_without_changing_its_beginning():
    assert TINY.cases() == TINY.cases()
    more = TINY.replace(patients=14, broken=0)
    assert more.cases()[:13] == TINY.cases()[:13]
    assert more.version == TINY.version != TINY.replace(seed=1).version


def test_two_visits_share_the_patient_and_cases_have_their_own_ids():
    cases = TINY.cases()
    assert len({case.id for case in cases}) == len(cases)
    people = [case.patient for case in cases if case.id.startswith("phantom-")]
    assert len(people) == 13
    assert len(set(people)) == 12


def test_forty_patients_show_every_region_often_and_every_kind_of_anatomy():
    cases = PhantomSource().cases()
    for region in ("head_neck", "chest", "abdomen"):
        assert sum(region in case.declared_regions for case in cases) >= 20
    assert {case.anatomy for case in cases} == {"full", "partial", "none"}
    assert sum(case.anatomy == "full" for case in cases) > 30
    assert 15 <= sum(bool(case.lesion) for case in cases) <= 28
    assert all(len(case.declared_regions) == 1 for case in cases if case.anatomy != "full")


def test_every_format_holds_a_ct_with_its_labels_and_companions_on_one_grid(fetched):
    for case in fetched.values():
        hu, image = read(case.image)
        assert -1024 <= hu.min() < -900
        assert hu.max() > 250
        names = [label.path for label in case.labels] + [*case.lesion] + [path for _, path in case.companions]
        for name in names:
            other = SimpleITK.ReadImage(name)
            corner = [n - 1 for n in other.GetSize()]
            ends = {
                tuple(np.round(o.TransformIndexToPhysicalPoint(p), 2)) for o, p in ((other, [0, 0, 0]), (other, corner))
            }
            assert ends == {
                tuple(np.round(image.TransformIndexToPhysicalPoint(p), 2))
                for p in ([0, 0, 0], [n - 1 for n in image.GetSize()])
            }


def test_anatomy_files_hold_declared_ids_and_fit_the_image(fetched):
    for case in fetched.values():
        for label in case.labels:
            ids, values = read([label.path])[0], {value for value, _ in label.classes}
            assert set(np.unique(ids)) - {0} <= values
            if case.anatomy == "full":
                hu = read(case.image)[0]
                if "chest" in case.declared_regions:
                    assert hu[np.isin(ids, (10, 11, 12, 13, 14))].mean() < -600
                assert np.median(hu[ids == 0]) < -980


def test_companions_are_a_noise_free_a_quarter_dose_and_a_white_control(fetched):
    case = fetched["nii.gz"]
    side = {name: read([path])[0].astype(float) for name, path in case.companions}
    assert list(side) == ["noise_free", "low_dose", "white_noise"]
    body = read([case.labels[0].path])[0] > 0
    std = {name: (values - side["noise_free"])[body].std() for name, values in side.items()}
    routine = (read(case.image)[0] - side["noise_free"])[body].std()
    assert 5 < routine < 25
    assert std["low_dose"] / routine == pytest.approx(2, rel=0.12)
    assert std["white_noise"] == pytest.approx(std["low_dose"], rel=0.05)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(fetched, tmp_path):
    for name, case in fetched.items():
        if name in ("dicom", "nrrd"):
            again = TINY.fetch(
                next(c for c in TINY.cases() if c.id == case.id), open_lake(str(tmp_path / "again")), SCRATCH
            )
            assert sums(again) == sums(case)
    other = TINY.replace(seed=5)
    case = other.fetch(other.cases()[0], open_lake(str(tmp_path / "other")), SCRATCH)
    assert not np.array_equal(read(case.image)[0], read(fetched["nii.gz"].image)[0])


def test_a_complete_case_is_never_written_again(fetched, lake):
    case = fetched["mha"]
    path = Path(case.image[0])
    before = path.stat().st_mtime_ns
    listed = next(c for c in TINY.cases() if c.id == case.id)
    assert TINY.fetch(listed, lake, SCRATCH) == case
    assert path.stat().st_mtime_ns == before
    assert not list(path.parent.parent.glob("*.partial"))


def test_a_folder_that_something_else_wrote_is_refused_by_name(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    case = next(c for c in TINY.cases() if c.id.startswith("broken-text"))
    stranger = Path(lake.url) / Path(case.image[0]).parent / "notes.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    with pytest.raises(CaseError, match="remove that folder"):
        TINY.fetch(case, lake, SCRATCH)
    assert stranger.read_text() == "mine"


def test_a_case_of_another_phantom_is_refused(lake):
    stranger = PhantomSource(seed=9).cases()[0]
    with pytest.raises(CaseError, match=stranger.version):
        TINY.fetch(stranger, lake, SCRATCH)


def test_broken_cases_are_listed_like_others_and_fetched(lake):
    broken = [case for case in TINY.cases() if case.id.startswith("broken-")]
    assert len(broken) == 8 == len(BROKEN)
    for case in broken:
        assert not case.problem
        assert all(Path(path).is_file() for path in TINY.fetch(case, lake, SCRATCH).origin)


class Bucket:
    """A lake without local paths, in memory."""

    id = "bucket"

    def __init__(self):
        self.objects = {}

    def local_path(self, key):
        return None

    def exists(self, key):
        return key in self.objects

    def read(self, key):
        return self.objects[key]

    def write(self, key, data):
        assert key not in self.objects, "raw is never overwritten"
        self.objects[key] = data


def test_a_bucket_keeps_the_files_and_a_second_machine_reads_them(monkeypatch, tmp_path):
    bucket, case = Bucket(), next(c for c in TINY.cases() if c.id.startswith("broken-other-label"))
    for machine in ("first", "second"):
        if machine == "second":
            monkeypatch.setattr(PhantomSource, "_generate", lambda *_: pytest.fail("it is already stored"))
        fetched = TINY.fetch(case, bucket, tmp_path / machine)
        assert all(Path(path).is_file() for path in fetched.origin)
    assert set(case.origin) <= set(bucket.objects)
