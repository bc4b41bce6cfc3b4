import tracemalloc

import numpy as np
import pydicom
import pytest
from ct_samples import ball_hu, write_dicom
from dicom_samples import SYNTAXES, compress

from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_image

HU = ball_hu((8, 33, 37))
PLACES = [(3.0, 4.0, 10.0 + 2 * k) for k in range(8)]


def decode(paths):
    return decode_image([str(path) for path in paths])


def unsigned(hu):
    return (np.maximum(hu, -1024).astype(np.int32) + 1024).astype(np.uint16)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_a_compressed_series_decodes_to_the_same_hu(tmp_path, syntax, kind):
    stored, intercept = (HU, 0) if kind == "signed" else (unsigned(HU), -1024)
    plain = write_dicom(tmp_path / "plain", stored, PLACES, RescaleIntercept=intercept)
    packed = compress(write_dicom(tmp_path / "packed", stored, PLACES, RescaleIntercept=intercept), syntax)
    assert pydicom.dcmread(packed[0]).file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert np.array_equal(decode(packed).array, decode(plain).array)
    assert np.array_equal(decode(packed).array, np.maximum(HU, -1024) if kind == "unsigned" else HU)


def test_a_file_without_preamble_and_file_meta_is_read_as_it_was_written(tmp_path):
    paths = write_dicom(tmp_path, HU, PLACES)
    for path in paths:
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(decode(paths).array, HU)


@pytest.mark.parametrize(("change", "accepted"), [(b"", True), (b"\0\0", False), (b"\1" * 640, False), (None, False)])
def test_pixels_that_are_more_or_fewer_than_rows_times_columns_are_refused(tmp_path, change, accepted):
    paths = write_dicom(tmp_path, HU, PLACES)
    dataset = pydicom.dcmread(paths[3])
    dataset.PixelData = dataset.PixelData[:-2] if change is None else dataset.PixelData + change
    dataset.save_as(paths[3])
    if accepted:
        assert np.array_equal(decode(paths).array, HU)
        return
    with pytest.raises(CaseError, match=rf"{paths[3].name}: its pixels cannot be decoded"):
        decode(paths)


def test_a_length_of_four_gigabytes_takes_no_memory(tmp_path):
    path = write_dicom(tmp_path, HU, PLACES)[0]
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW") + 8
    path.write_bytes(data[:at] + b"\xfe\xff\xff\xff" + data[at + 4 :])
    tracemalloc.start()
    try:
        with pytest.raises(CaseError, match="not a readable DICOM file"):
            decode([path])
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_slopes_with_fractions_are_rounded_once(tmp_path):
    stored = (np.arange(HU.size).reshape(HU.shape) * 29 % 32000 - 16000).astype(np.int16)
    slope, intercept = 0.12345, -7.4375
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleSlope=slope, RescaleIntercept=intercept))
    assert np.array_equal(image.array, np.rint(stored.astype(np.longdouble) * slope + intercept).astype(np.int16))


def test_numbers_that_only_the_intercept_brings_into_range_are_kept(tmp_path):
    stored = unsigned(HU) + np.uint16(40000)
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleIntercept=-41024))
    assert np.array_equal(image.array, np.maximum(HU, -1024))
    assert image.findings == ()


def test_what_lies_outside_int16_is_clipped_and_said(tmp_path):
    stored = HU.copy()
    stored[2, 3, 4] = 30000
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleSlope=2))
    assert image.array[2, 3, 4] == 32767
    assert image.findings == ("1 voxels lay outside int16 and were clipped",)


@pytest.mark.parametrize(
    ("value", "limit", "painted"),
    [(-2000, None, [-2000]), (63536, None, [-2000]), (-2100, -2000, [-2100, -2050, -2000]), (-32768, None, [-32768])],
)
def test_padding_becomes_air_and_never_passes_the_rescale(tmp_path, value, limit, painted):
    stored = HU + np.int16(0)
    for k, padding in enumerate(painted):
        stored[:, 0, k] = padding
    changes = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    paths = write_dicom(tmp_path, stored, PLACES, RescaleSlope=2, RescaleIntercept=-9, **_unambiguous(changes))
    image = decode(paths)
    expected = 2 * HU.astype(int) - 9
    expected[:, 0, : len(painted)] = -1024
    assert np.array_equal(image.array, expected)
    assert image.findings == (f"{8 * len(painted)} pixels of PixelPaddingValue became -1024 HU",)


def _unambiguous(changes):
    """Numbers that do not fit a signed element are written as the unsigned that has the same bits, and back."""
    return {name: value - 65536 if value > 32767 else value for name, value in changes.items()}


def test_padding_of_an_unsigned_image_may_be_brighter_than_bone(tmp_path):
    stored = unsigned(HU)
    stored[:, :, 0] = 65535
    image = decode(write_dicom(tmp_path, stored, PLACES, RescaleIntercept=-1024, PixelPaddingValue=65535))
    assert (image.array[:, :, 0] == -1024).all()
    assert image.array.max() == HU[:, :, 1:].max()


def test_a_padding_value_of_tissue_pads_corners_but_makes_no_holes_in_the_body(tmp_path):
    whole = decode(write_dicom(tmp_path / "a", HU, PLACES, PixelPaddingValue=40))
    assert (HU == 40).sum() > 20
    assert np.array_equal(whole.array, HU)
    assert "lie inside the image at a HU of tissue" in whole.findings[0]
    stored = HU.copy()
    stored[:, :2, :2] = 0
    padded = decode(write_dicom(tmp_path / "b", stored, PLACES, PixelPaddingValue=0))
    assert (padded.array[:, :2, :2] == -1024).all()


def test_loss_by_compression_is_said(tmp_path):
    image = decode(write_dicom(tmp_path, HU, PLACES, LossyImageCompression="01"))
    assert image.findings == ("8 slices were compressed with loss",)


def test_real_padding_of_a_scanner_is_air(real_data):
    paths = sorted((real_data / "abdomen-dicom").iterdir())
    image = decode(paths)
    stored = np.stack([pydicom.dcmread(p).pixel_array for p in paths])
    assert image.array.min() >= -1024
    assert image.findings == (f"{(stored == -2000).sum()} pixels of PixelPaddingValue became -1024 HU",)
