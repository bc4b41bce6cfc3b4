"""NRRD and MetaImage files."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from preprocessing.geometry import Geometry


def write_itk(array_zyx: NDArray, geometry: Geometry, path: Path) -> None:
    """An array (z, y, x), compressed, with its geometry (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array_zyx))
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm[::-1])
    image.SetDirection(np.asarray(geometry.direction)[::-1, ::-1].ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
