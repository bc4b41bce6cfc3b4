"""What users have today: read, turn to LPS, resample, save. Each side takes a folder with one CT and a new folder."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def _image(folder: str) -> Path:
    """The image file of a folder; the folder itself where it holds a DICOM series."""
    files = [path for path in sorted(Path(folder).iterdir()) if path.name.startswith("ct.")]
    return files[0] if files else Path(folder)


def _read_itk(folder: str) -> "sitk.Image":  # noqa: F821
    import SimpleITK as sitk

    path = _image(folder)
    if path.is_dir():
        return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    return sitk.ReadImage(str(path))


def bare_simpleitk(folder: str, out: str, spacing_mm: float) -> None:
    """The floor: SimpleITK reads, orients, resamples linearly and writes a compressed NIfTI."""
    import SimpleITK as sitk

    image = sitk.DICOMOrient(_read_itk(folder), "LPS")
    size = [max(1, round(n * s / spacing_mm)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = image.GetOrigin(), [spacing_mm] * 3, image.GetDirection()
    out_image = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *grid, -1024, sitk.sitkInt16)
    Path(out).mkdir()
    sitk.WriteImage(out_image, f"{out}/ct.nii.gz", True)


def monai(folder: str, out: str, spacing_mm: float) -> None:
    """MONAI's transforms: LoadImage, Orientation, Spacing (bilinear), SaveImage."""
    import torch
    from monai.transforms import Compose, LoadImage, Orientation, SaveImage, Spacing

    torch.set_num_threads(1)
    Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            Orientation("LPS", labels=None),
            Spacing([spacing_mm] * 3, mode="bilinear"),
            SaveImage(out, output_ext=".nii.gz", output_dtype=np.int16, resample=False, print_log=False),
        ]
    )(str(_image(folder)))


def nnunet(folder: str, out: str, spacing_mm: float) -> None:
    """nnU-Net's resampling (order 3) of what SimpleITK reads; nothing is written."""
    import SimpleITK as sitk
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    image = sitk.DICOMOrient(_read_itk(folder), "LPS")
    spacing = image.GetSpacing()[::-1]
    array = sitk.GetArrayFromImage(image).astype(np.float32)[None]
    shape = [round(n * s / spacing_mm) for n, s in zip(array.shape[1:], spacing, strict=True)]
    resample_data_or_seg_to_shape(array, shape, spacing, [spacing_mm] * 3, is_seg=False, order=3, order_z=0)


SIDES: dict[str, Callable[[str, str, float], None]] = {"bare SimpleITK": bare_simpleitk, "MONAI": monai}
if find_spec("nnunetv2"):  # no part of the `bench` extra: it brings a module that hides Python's own argparse
    SIDES["nnU-Net, resampling only"] = nnunet
