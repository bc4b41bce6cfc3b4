"""Results as NRRD or MetaImage through ITK, in the frame of another such file or of a geometry."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from preprocessing.encoding.derived import plain
from preprocessing.geometry import Geometry

COMPRESSION = 2


def write_itk(
    path: Path, array_ZYX: NDArray, like: Path | Geometry, note: str, names: Mapping[str, int] | None = None
) -> None:
    """One compressed file (.nrrd, .mha) of numbers; `names` says what a label map's values mean."""
    image = SimpleITK.GetImageFromArray(array_ZYX)
    _place(image, like)
    image.SetMetaData("Derivation", plain(note))
    for name, value in (names or {}).items():
        image.SetMetaData(f"Segment{value - 1}_Name", plain(name))
        image.SetMetaData(f"Segment{value - 1}_LabelValue", str(value))
    writer = SimpleITK.ImageFileWriter()
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressionLevel(COMPRESSION)
    try:
        writer.Execute(image)
    except RuntimeError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


def _place(image: SimpleITK.Image, like: Path | Geometry) -> None:
    """Spacing, direction and origin as another file states them, or as a geometry is."""
    if isinstance(like, Geometry):
        image.SetSpacing(like.spacing_mm[::-1])
        image.SetDirection(np.asarray(like.direction)[::-1, ::-1].ravel().tolist())
        image.SetOrigin(like.origin_mm[::-1])
        return
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(like))
    reader.ReadImageInformation()
    size = reader.GetDimension()
    image.SetSpacing(reader.GetSpacing()[:3])
    image.SetDirection(np.reshape(reader.GetDirection(), (size, size))[:3, :3].ravel().tolist())
    image.SetOrigin(reader.GetOrigin()[:3])
