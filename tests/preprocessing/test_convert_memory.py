"""How much a conversion holds at once: a few times the volume, never what a worker has not got."""

import pytest
from benchmarks.convert import allowed_bytes, make_tall, peak_memory

from preprocessing.recipe import paper

WORKER = 4 * 2**30


def test_a_conversion_holds_no_more_than_three_times_its_larger_volume(real_data):
    measured = peak_memory(str(real_data / "chest-full"), paper())
    assert measured["peak MB"] <= measured["allowed MB"]


@pytest.mark.slow
def test_a_whole_body_of_2000_slices_passes_with_a_worker_of_4_gb(real_data, tmp_path):
    folder = make_tall(real_data / "chest-full", tmp_path / "tall", 2000, spacing_mm=1.0, name="ct.nii")
    assert allowed_bytes(str(folder), paper()) <= WORKER
    measured = peak_memory(str(folder), paper())
    assert measured["peak MB"] <= measured["allowed MB"]
