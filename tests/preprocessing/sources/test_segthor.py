"""SegTHOR: a folder a patient with its labels in training, bare images in testing."""

from miniatures import anatomy_of, brought, ingested, rows, scan, statuses, zipped

from preprocessing.sources.registry import make_source

ORGANS = {1: "esophagus", 2: "heart", 3: "trachea", 4: "aorta"}


def test_training_patients_have_four_organs_and_test_patients_none(tmp_path, lake, settings):
    chest = scan("chest", 0)
    train = {
        "train/Patient_01/Patient_01.nii.gz": chest.nifti(),
        "train/Patient_01/GT.nii.gz": chest.nifti(chest.labelled(ORGANS)),
    }
    paths = brought(
        tmp_path,
        {"train.zip": zipped(train), "test.zip": zipped({"test/Patient_41.nii.gz": scan("chest", 1).nifti()})},
    )
    ingested(lake, make_source("segthor", archive=paths), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"Patient_01": "sealed", "Patient_41": "sealed"}
    assert anatomy_of(lake, found["Patient_01"]) == {*ORGANS.values(), "unknown"}
    assert (found["Patient_01"].anatomy, found["Patient_41"].anatomy) == ("partial", "none")
    assert {row.licence for row in found.values()} == {"research only"}

    again = ingested(lake, make_source("segthor", archive=paths), settings)
    assert (again.converted, again.unchanged) == (0, 2)
