"""BTCV's RawData.zip: img and label folders for training, images alone (ids from 61) for testing."""

from miniatures import anatomy_of, brought, ingested, rows, scan, statuses, zipped

from preprocessing.sources.btcv import ORGANS
from preprocessing.sources.registry import make_source


def test_thirteen_organs_are_named_and_test_images_are_bare(tmp_path, lake, settings):
    abdomen = scan("abdomen", 0)
    files = {
        "RawData/Training/img/img0001.nii.gz": abdomen.nifti(),
        "RawData/Training/label/label0001.nii.gz": abdomen.nifti(abdomen.labelled(dict(enumerate(ORGANS, 1)))),
        "RawData/Testing/img/img0061.nii.gz": scan("abdomen", 1).nifti(),
    }
    (path,) = brought(tmp_path, {"RawData.zip": zipped(files)})
    ingested(lake, make_source("btcv", archive=(path,)), settings)
    found = rows(lake)
    assert statuses(found.values()) == {"img0001": "sealed", "img0061": "sealed"}
    assert anatomy_of(lake, found["img0001"]) >= {"liver", "spleen", "kidney_left", "kidney_right", "unknown"}
    assert (found["img0001"].anatomy, found["img0061"].anatomy) == ("partial", "none")
    assert "abdomen" in found["img0001"].regions

    again = ingested(lake, make_source("btcv", archive=(path,)), settings)
    assert (again.converted, again.unchanged) == (0, 2)
