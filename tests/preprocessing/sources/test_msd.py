"""The Decathlon as it is served: one plain tar a task, AppleDouble twins beside the images, no labels for imagesTs."""

import json

import numpy as np
import pytest
from miniatures import anatomy_of, ingested, rows, scan, served, statuses, tarred

from preprocessing.sources.registry import make_source


def lung_tar(patients=2) -> bytes:
    root = "Task06_Lung"
    files = {f"{root}/dataset.json": json.dumps({"labels": {"0": "background", "1": "cancer"}}).encode()}
    for number in range(1, patients + 1):
        chest = scan("chest", number - 1)
        for folder, data in (("imagesTr", chest.nifti()), ("labelsTr", chest.nifti(chest.lesion))):
            files[f"{root}/{folder}/._lung_{number:03d}.nii.gz"] = b"\x00\x05\x16\x07"
            files[f"{root}/{folder}/lung_{number:03d}.nii.gz"] = data
    return tarred(files | {f"{root}/imagesTs/lung_064.nii.gz": scan("chest", 2).nifti()})


def test_a_task_is_pulled_once_and_read_in_its_tar(server, lake, settings):
    source = make_source("msd-lung", **served(server, {"Task06_Lung.tar": lung_tar()}))
    first = ingested(lake, source, settings)
    found = rows(lake)
    assert statuses(found.values()) == {"lung_001": "sealed", "lung_002": "sealed", "lung_064": "sealed"}
    assert [row.lesion for row in found.values()] == [True, True, False]
    assert {row.split for row in found.values()} == {"test"}
    assert {row.licence for row in found.values()} == {"CC BY-SA 4.0"}
    assert found["lung_001"].origin[0].startswith("lake:raw/msd-lung/")
    assert found["lung_001"].origin[0].endswith("/Task06_Lung.tar/Task06_Lung/imagesTr/lung_001.nii.gz")
    assert first.converted == 3

    asked = len(server.log)
    again = ingested(lake, make_source("msd-lung", **served(server, {"Task06_Lung.tar": lung_tar()})), settings)
    assert (again.converted, again.unchanged) == (0, 3)
    assert len(server.log) == asked, "nothing travels for what is unchanged"


@pytest.mark.parametrize(
    ("name", "folder", "stem", "organ"),
    [
        ("msd-pancreas", "Task07_Pancreas", "pancreas", "pancreas"),
        ("msd-hepatic-vessel", "Task08_HepaticVessel", "hepaticvessel", ""),
        ("msd-spleen", "Task09_Spleen", "spleen", "spleen"),
        ("msd-colon", "Task10_Colon", "colon", ""),
    ],
)
def test_the_other_tasks_train_where_the_patient_falls(name, folder, stem, organ, server, lake, settings):
    abdomen = scan("abdomen", 1)
    tumour = 1 if name == "msd-colon" else 2
    values = np.zeros_like(abdomen.anatomy) if not organ else abdomen.labelled({1: organ})
    if name != "msd-spleen":
        values[abdomen.lesion > 0] = tumour
    files = {f"{folder}/imagesTr/{stem}_001.nii.gz": abdomen.nifti()}
    files[f"{folder}/labelsTr/{stem}_001.nii.gz"] = abdomen.nifti(values)
    ingested(lake, make_source(name, **served(server, {f"{folder}.tar": tarred(files)})), settings)
    (row,) = rows(lake).values()
    assert (row.status, row.lesion) == ("sealed", name != "msd-spleen")
    assert row.declared == ""
    assert row.anatomy == ("partial" if organ else "none")


def test_a_tumour_keeps_its_organ(server, lake, settings):
    abdomen = scan("abdomen")
    values = abdomen.labelled({1: "liver"})
    values[abdomen.lesion > 0] = 2
    root = "Task03_Liver"
    files = {
        f"{root}/imagesTr/liver_0.nii.gz": abdomen.nifti(),
        f"{root}/labelsTr/liver_0.nii.gz": abdomen.nifti(values),
    }
    ingested(lake, make_source("msd-liver", **served(server, {"Task03_Liver.tar": tarred(files)})), settings)
    (row,) = rows(lake).values()
    assert row.lesion
    assert anatomy_of(lake, row) == {"liver", "unknown"}
