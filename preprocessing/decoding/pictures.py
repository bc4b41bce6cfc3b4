"""Masks drawn as pictures, one PNG for each file of a DICOM series, made into one label file on the series' grid.

The k-th picture belongs to the k-th file, both in order of their names; where that file's slice lies its header says.
A set that counted one of the two from the other end would put the organ elsewhere: the image tells, as a solid organ
lies in soft tissue. The order that fits clearly better is taken, with a finding where it is not that of the names.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from preprocessing.case import CaseError
from preprocessing.decoding.decode import Decoded, decode_image
from preprocessing.decoding.dicom_header import read_headers
from preprocessing.decoding.dicom_stacks import along_normal
from preprocessing.geometry import Geometry

SOFT_TISSUE_HU = (-100, 300)
CLEARLY = 0.1  # of the mask's voxels
LEAST_SHARE = 0.6  # of a mask that lies in soft tissue


def write_mask(pictures: Sequence[str], slices: Sequence[str], target: Path) -> tuple[str, ...]:
    """One mask (0/1, .mha) of a solid organ from its pictures, everything above 0 being the organ; returns findings.

    Raises:
        CaseError: a picture is missing, damaged or of another size, or the mask fits the image in neither order.
    """
    image = decode_image(slices)
    planes = [_plane(path, image.array.shape[1:]) for path in sorted(pictures, key=_numbers)]
    if not len(planes) == len(slices) == len(image.array):
        raise CaseError(
            f"{len(planes)} label pictures do not match {len(slices)} files of {len(image.array)} slices one to one; "
            "fetch the archive again."
        )
    by_file = dict(zip(sorted(slices, key=_numbers), planes, strict=True))
    backwards = dict(zip(sorted(slices, key=_numbers), reversed(planes), strict=True))
    ordered = along_normal([read_headers(Path(path))[0] for path in slices])
    mask, other = (np.stack([plane[header.path] for header in ordered]) for plane in (by_file, backwards))
    mask, findings = _better(mask, other, image)
    _write(mask, image.geometry, target)
    return findings


def _better(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], image: Decoded
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The mask, or the one in the other order where that one fits clearly better."""
    low, high = SOFT_TISSUE_HU
    soft = (image.array >= low) & (image.array <= high)
    share, turned = (float(soft[one].mean()) if one.any() else 1.0 for one in (mask, other))
    if max(share, turned) < LEAST_SHARE:
        raise CaseError(
            f"only {share:.0%} of the label pictures' mask lies in soft tissue, and {turned:.0%} in the other order; "
            "they belong to another scan."
        )
    if turned > share + CLEARLY:
        found = f"label pictures are numbered from the other end: {turned:.0%} lies in soft tissue, else {share:.0%}"
        return other, (found,)
    return mask, ()


def _plane(path: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """One picture as a mask of these rows and columns."""
    try:
        with Image.open(path) as picture:
            plane = np.asarray(picture.convert("L")) > 0
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise CaseError(f"{Path(path).name} is no readable picture; fetch it again.") from error
    if plane.shape != shape:
        raise CaseError(f"{Path(path).name} has {plane.shape} pixels, its slices {shape}; fetch it again.")
    return plane


def _write(mask: NDArray[np.bool_], geometry: Geometry, target: Path) -> None:
    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetDirection((geometry.matrix / np.asarray(geometry.spacing_mm))[::-1, ::-1].ravel())
    image.SetOrigin(geometry.origin_mm[::-1])
    SimpleITK.WriteImage(image, str(target))


def _numbers(path: str) -> tuple[list[int], str]:
    """What a numbered file is sorted by."""
    name = Path(path).name
    return [int(digits) for digits in re.findall(r"\d+", name)], name
