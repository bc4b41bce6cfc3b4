"""KiTS23 as it is served: each image and each label behind a url of its own, arrays stored z first."""

import gzip

import nibabel as nib
import numpy as np
from ct_samples import ras_affine
from faulty_server import File
from miniatures import Scan, anatomy_of, brought, ingested, rows, scan, statuses

from preprocessing.geometry import Geometry
from preprocessing.resample import resample_onto
from preprocessing.selection import Selection, selected
from preprocessing.sources.kits import IMAGES, LABELS, NUMBERS
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def z_first(shown: Scan, array: np.ndarray) -> bytes:
    """An array as KiTS stores it: (z, y, x), told by the affine."""
    affine = ras_affine(shown.geometry)
    affine[:3, :3] = affine[:3, 2::-1]
    return gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), 1, mtime=0)


def image_and_label(patient: int) -> tuple[bytes, bytes]:
    """Kidneys 1, tumour 2, and a cyst 3 in what the phantom calls a kidney."""
    shown = scan("abdomen", patient)
    values = np.where(shown.labelled({1: "kidney_right", 2: "kidney_left"}) > 0, 1, 0).astype(np.uint8)
    values[tuple(np.argwhere(values)[0])] = 3
    values[shown.lesion > 0] = 2
    return z_first(shown, shown.hu.astype(np.float64)), z_first(shown, values)


def test_every_case_is_listed_by_the_urls_of_its_host():
    cases = make_source("kits").cases()
    assert len(cases) == len(NUMBERS) == 489
    last = cases[-1]
    assert last.image == (f"{IMAGES}/images/case_00588.nii.gz",)
    assert last.labels[0].path == f"{LABELS}/dataset/case_00588/segmentation.nii.gz"


def test_a_case_is_pulled_when_it_is_converted_and_a_missing_one_is_tried_again(server, lake, settings):
    source = make_source("kits", mirror=server.url(""))
    there, gone = selected(source.cases(), (), Selection(limit=2), lake)
    image, label = image_and_label(0)
    server.files[f"/images/{there.id}.nii.gz"] = File(image)
    server.files[f"/dataset/{there.id}/segmentation.nii.gz"] = File(label)
    ingested(lake, source, settings, selection=Selection(limit=2))
    found = rows(lake)
    assert found[there.id].status == "sealed"
    assert f"{gone.id}.nii.gz" in statuses(found.values())[gone.id]
    assert found[there.id].lesion
    assert found[there.id].licence == "CC BY-NC-SA 4.0"
    assert anatomy_of(lake, found[there.id]) == {"unknown"}
    stored = open_case(lake, found[there.id].key)
    shown = scan("abdomen")
    grid = Geometry.from_dict(stored.record.geometry)
    expected = resample_onto(shown.hu, shown.geometry, grid)
    assert np.abs(stored.read_all("image") - expected.astype(int)).max() <= 1, "the axes are told by the affine"

    for name in (f"/images/{gone.id}.nii.gz", f"/dataset/{gone.id}/segmentation.nii.gz"):
        server.files[name] = server.files[name.replace(gone.id, there.id)]
    again = ingested(lake, source, settings, selection=Selection(limit=2))
    assert (again.converted, again.unchanged) == (1, 1)
    assert rows(lake)[gone.id].status == "sealed"
    asked = len(server.log)
    assert ingested(lake, source, settings, selection=Selection(limit=2)).unchanged == 2
    assert len(server.log) == asked


def test_a_copy_of_the_repository_is_read_in_place(lake, settings, tmp_path):
    image, label = image_and_label(1)
    files = {
        "imaging.nii.gz": image,
        "segmentation.nii.gz": label,
        "instances/tumor_instance-1_annotation-1.nii.gz": b"",
    }
    brought(tmp_path, {f"kits23/dataset/case_00015/{name}": data for name, data in files.items()})
    ingested(lake, make_source("kits", archive=(str(tmp_path / "kits23"),)), settings)
    (row,) = rows(lake).values()
    assert (row.case, row.status, row.lesion) == ("case_00015", "sealed", True)
    assert any("not labelled" in finding for finding in open_case(lake, row.key).record.findings)
