"""The sets of the Imaging Data Commons that have a name of their own: what the bundled index holds of them."""

import pytest

from preprocessing.sources.registry import make_source

SPLIT_OFF = ("abd-ln", "med-ln", "ldct-and-projection-data")
COUNTS = {
    "abd-ln": (86, 86, 86, 0),
    "c4kc-kits": (411, 210, 210, 0),
    "fdg-pet-ct-lesions": (1014, 900, 1014, 0),
    "ldct-and-projection-data": (199, 199, 0, 100),
    "lidc-idri": (1018, 1010, 883, 0),
    "med-ln": (90, 90, 90, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_lists_its_series_patients_labels_and_companions(name):
    cases = make_source(name).cases()
    labelled = sum(bool(case.labels) for case in cases)
    assert (len(cases), len({case.patient for case in cases}), labelled) == COUNTS[name][:3]
    assert sum(len(case.companions) for case in cases) == COUNTS[name][3]
    assert len({case.id for case in cases}) == len(cases)
    assert not any(case.problem for case in cases)
    assert {case.split for case in cases} == ({"test"} if name in SPLIT_OFF else {""})


@pytest.mark.slow
def test_nlst_is_listed_whole():
    cases = make_source("nlst").cases()
    assert len(cases) == 203111
    assert sum(not case.problem for case in cases) == 133515
    assert len({case.patient for case in cases}) == 26254
