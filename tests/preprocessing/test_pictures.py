"""Masks drawn as pictures: one for each file of a series, in the order of names, checked against the image."""

import numpy as np
import pytest
from ct_samples import ball_hu, write_dicom
from PIL import Image

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image, read_raster
from preprocessing.decoding.pictures import write_mask


@pytest.fixture
def series(tmp_path):
    """The paths of a series, in order of position; its names run the other way. The body lies in the lower half."""
    hu = ball_hu()
    hu[14:] = -1000
    return [str(p) for p in write_dicom(tmp_path / "ct", hu, [(0, 0, 2.0 * k) for k in range(len(hu))])]


def drawn(folder, planes) -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"GT_{number:03d}.png" for number in range(len(planes))]
    for path, plane in zip(paths, planes, strict=True):
        Image.fromarray(plane).save(path)
    return [str(path) for path in paths]


def mask(series) -> np.ndarray:
    out = np.zeros(decode_image(series).array.shape, np.uint8)
    out[6:12, 12:16, 14:20] = 255
    return out


@pytest.mark.parametrize("backwards", [False, True])
def test_a_picture_lies_where_its_slice_lies_whichever_end_it_is_counted_from(series, tmp_path, backwards):
    wanted = mask(series)
    planes = wanted[::-1] if not backwards else wanted
    found = write_mask(drawn(tmp_path / "png", planes), series, tmp_path / "mask.mha")
    written = read_raster([str(tmp_path / "mask.mha")])
    assert np.array_equal(written.array, wanted > 0)
    assert np.allclose(written.geometry.corners(), decode_image(series).geometry.corners())
    assert bool(found) == backwards


def test_pictures_of_another_scan_are_refused(series, tmp_path):
    everywhere_but_the_body = np.where(decode_image(series).array < -500, 255, 0).astype(np.uint8)
    with pytest.raises(CaseError, match="belong to another scan"):
        write_mask(drawn(tmp_path / "png", everywhere_but_the_body[::-1]), series, tmp_path / "mask.mha")


def test_a_missing_a_damaged_and_a_smaller_picture_are_refused(series, tmp_path):
    paths = drawn(tmp_path / "png", mask(series))
    with pytest.raises(CaseError, match="23 label pictures do not match 24 files"):
        write_mask(paths[1:], series, tmp_path / "mask.mha")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(paths[3])
    with pytest.raises(CaseError, match=r"GT_003\.png has \(9, 9\) pixels"):
        write_mask(paths, series, tmp_path / "mask.mha")
    (tmp_path / "png" / "GT_003.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(CaseError, match=r"GT_003\.png is no readable picture"):
        write_mask(paths, series, tmp_path / "mask.mha")
