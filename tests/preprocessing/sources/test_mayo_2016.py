"""The 2016 challenge's DICOM folders, loose or zipped, with the dose above or below the patient."""

import numpy as np
import pytest
from miniatures import Scan, brought, ingested, rows, scan, statuses, zipped

from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def series(folder: str, name: str, body: Scan) -> dict[str, bytes]:
    """A DICOM series with the challenge's file names."""
    return {
        f"{folder}/{name}.CT.0004.{number:04d}.2015.12.22.IMA": data
        for number, data in enumerate(body.dicom().values(), 1)
    }


def noisy(body: Scan) -> Scan:
    noise = np.random.default_rng(0).normal(0, 25, body.hu.shape)
    return Scan((body.hu + noise).round().astype(np.int16), body.anatomy, body.lesion, body.geometry)


def files(order: str) -> dict[str, bytes]:
    """Two patients at two doses, one of them also in a sharp kernel at full dose only."""

    def place(dose: str, patient: str) -> str:
        return f"{dose}/{patient}" if order == "dose first" else f"{patient}/{dose}"

    found = {}
    for number, patient in enumerate(("L067", "L506")):
        body = scan("abdomen", number)
        found |= series(place("full_3mm", patient), f"{patient}_FD_3_1", body)
        found |= series(place("quarter_3mm", patient), f"{patient}_QD_3_1", noisy(body))
    return found | series(place("full_3mm_sharp", "L067"), "L067_FD_3_SHARP_1", scan("abdomen", 0))


@pytest.mark.parametrize(("order", "zips"), [("dose first", True), ("patient first", False)])
def test_full_dose_is_the_image_and_quarter_dose_its_companion(tmp_path, lake, settings, order, zips):
    if zips:
        parts = {"FD_3mm.zip": "full_3mm", "QD_3mm.zip": "quarter_3mm"}
        own = {name: {k: v for k, v in files(order).items() if k.startswith(stem)} for name, stem in parts.items()}
        brought(tmp_path / "given", {f"3mm B30/{name}": zipped(members) for name, members in own.items()})
    else:
        brought(tmp_path / "given", files(order))
    path = str(tmp_path / "given")
    ingested(lake, make_source("mayo-2016", archive=(path,)), settings)
    found = rows(lake)
    assert statuses(found.values()) == dict.fromkeys(["L067_3mm", "L067_3mm_D45", "L506_3mm"], "sealed")
    assert {row.split for row in found.values()} == {"test"}
    assert [found[case].patient for case in sorted(found)] == ["L067", "L067", "L506"]
    assert {case: row.companions for case, row in found.items()} == {
        "L067_3mm": ("low_dose",),
        "L067_3mm_D45": (),
        "L506_3mm": ("low_dose",),
    }
    stored = open_case(lake, found["L067_3mm"].key)
    image, low = (stored.read_all(name).astype(float) for name in ("image", "low_dose"))
    assert 2 < np.std((low - image)[image > -500]) < 60, "the same grid, another noise"

    again = ingested(lake, make_source("mayo-2016", archive=(path,)), settings)
    assert (again.converted, again.unchanged) == (0, 3)


def test_a_changed_slice_of_the_companion_changes_the_case(tmp_path, lake):
    brought(tmp_path / "given", files("patient first"))
    source = make_source("mayo-2016", archive=(str(tmp_path / "given"),))
    before = {case.id: case.version for case in source.cases(lake)}
    one = sorted((tmp_path / "given/L506/quarter_3mm").iterdir())[0]
    one.write_bytes(one.read_bytes() + b"\0")
    after = {case.id: case.version for case in source.cases(lake)}
    assert {case for case in before if before[case] != after[case]} == {"L506_3mm"}
