"""INSTANCE 2022: data and label folders under `train_2`, validation images without labels."""

from miniatures import brought, ingested, rows, scan, statuses, zipped

from preprocessing.sources.registry import make_source


def test_haemorrhages_are_lesions_of_the_head(tmp_path, lake, settings):
    head, other = scan("head_neck", 0), scan("head_neck", 1)
    train = {"train_2/data/001.nii.gz": head.nifti(), "train_2/label/001.nii.gz": head.nifti(head.lesion)}
    validation = {"evaluation/101.nii.gz": other.nifti()}
    paths = brought(tmp_path, {"train_2.zip": zipped(train), "evaluation.zip": zipped(validation)})
    ingested(lake, make_source("instance22", archive=paths), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"001": "sealed", "101": "sealed"}
    assert (found["001"].lesion, found["101"].lesion) == (True, False)
    assert {row.regions for row in found.values()} == {("head_neck",)}
    assert {row.licence for row in found.values()} == {"CC BY-NC-ND"}
    assert {row.anatomy for row in found.values()} == {"none"}

    again = ingested(lake, make_source("instance22", archive=paths), settings)
    assert (again.converted, again.unchanged) == (0, 2)


def test_a_training_image_without_label_is_noted_and_a_validation_image_is_not(tmp_path, lake):
    files = {"train_2/data/001.nii.gz": scan("head_neck").nifti(), "evaluation/101.nii.gz": scan("head_neck").nifti()}
    (path,) = brought(tmp_path, {"instance.zip": zipped(files)})
    first, second = make_source("instance22", archive=(path,)).cases(lake)
    assert first.notes == ("no label file of this image was found",)
    assert second.notes == ()
