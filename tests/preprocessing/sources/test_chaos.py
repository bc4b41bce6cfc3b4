"""CHAOS as it is served: folders of DICOM slices, a numbered PNG of the liver for each file, MR beside the CT."""

import io

import numpy as np
from miniatures import Scan, anatomy_of, ingested, rows, scan, served, statuses, zipped
from PIL import Image

from preprocessing.anatomy import class_ids
from preprocessing.geometry import Geometry
from preprocessing.resample import resample_onto
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def slices(place: str, shown: Scan) -> dict[str, bytes]:
    """A series whose file names run against the positions of its slices."""
    files = sorted(shown.dicom().items())
    return {f"{place}/DICOM_anon/i{number:04d},0000b.dcm": data for number, (_, data) in enumerate(files)}


def pictures(place: str, shown: Scan, backwards=False) -> dict[str, bytes]:
    """The liver of every file as `liver_GT_NNN.png`, 0 and 255; numbered from the other end where `backwards`."""
    liver = shown.labelled({255: "liver"})[:: 1 if backwards else -1]
    out = {}
    for number, plane in enumerate(liver):
        stream = io.BytesIO()
        Image.fromarray(plane).save(stream, "png")
        out[f"{place}/Ground/liver_GT_{number:03d}.png"] = stream.getvalue()
    return out


def archives() -> dict[str, bytes]:
    """Two patients to learn from, the second one's pictures backwards, one with an MR, and one to test on."""
    one, two = scan("chest"), scan("chest", 1)
    train = slices("Train_Sets/CT/1", one) | pictures("Train_Sets/CT/1", one)
    train |= slices("Train_Sets/CT/2", two) | pictures("Train_Sets/CT/2", two, backwards=True)
    train |= slices("Train_Sets/CT/5", two) | dict(list(pictures("Train_Sets/CT/5", two).items())[1:])
    train |= {f"Train_Sets/MR/1/T1DUAL/DICOM_anon/{phase}/IMG-0001-00001.dcm": b"" for phase in ("InPhase", "OutPhase")}
    train |= {"Train_Sets/MR/1/T2SPIR/Ground/IMG-0001-00001.png": b""}
    test = slices("Test_Sets/CT/3", scan("chest", 2))
    return {"CHAOS_Train_Sets.zip": zipped(train), "CHAOS_Test_Sets.zip": zipped(test)}


def test_pictures_become_labels_where_their_slices_lie(server, lake, settings):
    source = make_source("chaos", **served(server, archives()))
    ingested(lake, source, settings)
    found = rows(lake)
    reasons = statuses(found.values())
    incomplete = reasons.pop("Train-CT-5")
    assert reasons == {
        "Test-CT-3": "sealed",
        "Train-CT-1": "sealed",
        "Train-CT-2": "sealed",
        "Train-MR-1": "MR, not CT; only CT can be ingested",
    }
    assert "41 label pictures do not match 42 files" in incomplete
    assert [found[case].anatomy for case in ("Train-CT-1", "Test-CT-3")] == ["partial", "none"]
    assert found["Train-CT-1"].licence == "CC BY-NC-SA 4.0"
    assert {path.rpartition(".")[2] for path in found["Train-CT-1"].origin} == {"dcm", "png"}

    for case, shown in (("Train-CT-1", scan("chest")), ("Train-CT-2", scan("chest", 1))):
        stored = open_case(lake, found[case].key)
        grid = Geometry.from_dict(stored.record.geometry)
        expected = resample_onto(shown.labelled({1: "liver"}), shown.geometry, grid, nearest=True)
        assert expected.any()
        assert np.array_equal(stored.read_all("anatomy") == class_ids()["liver"], expected > 0)
        turned = [finding for finding in stored.record.findings if "numbered from the other end" in finding]
        assert bool(turned) == (case == "Train-CT-2")

    asked = len(server.log)
    assert ingested(lake, source, settings).unchanged == 5
    assert len(server.log) == asked
    assert "unknown" in anatomy_of(lake, found["Train-CT-1"])
