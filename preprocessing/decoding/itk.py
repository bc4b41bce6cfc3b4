"""NRRD and MetaImage files (.nrrd, .nhdr, .mha, .mhd) through ITK, which gives LPS coordinates for both.

A NRRD file whose `space` is missing says nothing of left and right: it is marked as not oriented.
"""

import math
import re
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from SimpleITK import GetArrayFromImage, ImageFileReader, ProcessObject

from preprocessing.case import CaseError
from preprocessing.decoding.data_files import DataFile, data_file
from preprocessing.decoding.packed import read_packed
from preprocessing.decoding.raster import Raster, checked_geometry
from preprocessing.decoding.text_headers import METAIMAGE, check_place, metaimage_numbers

KNOWN_SPACES = {f"{side}-{front}-superior" for side in ("left", "right") for front in ("anterior", "posterior")} - {
    "right-posterior-superior"
}
NUMBER_TYPES = {
    getattr(SimpleITK, f"sitk{vector}{name}"): name.lower()
    for name in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
    for vector in ("", "Vector")  # a NRRD's list axis of length one
}
BEST_RATIO = {"gzip": 1100, "zlib": 1100, "bzip2": 1_000_000}  # no stream packs tighter
MOST_BYTES_A_LETTER = 4  # an ASCII file: a digit and a space may be a double

ProcessObject.GlobalWarningDisplayOff()


def read_itk(path: Path) -> Raster:
    """The values (z, y, x) and the geometry of one NRRD or MetaImage file.

    Raises:
        CaseError: unreadable, cut short, not three-dimensional, several numbers a voxel, or an unknown space.
    """
    image, array = _read(path)
    size = image.GetDimension()
    spacing = np.asarray(image.GetSpacing())[:3]
    direction = np.asarray(image.GetDirection()).reshape(size, size)[:3, :3]
    matrix = (direction * spacing)[::-1, ::-1]
    origin = np.asarray(image.GetOrigin())[:3][::-1]
    array = array.reshape(array.shape[-3:])
    geometry, findings = checked_geometry(array.shape, matrix, origin, path.name)
    oriented = _is_oriented(image, path)
    left_out = check_place(path) if oriented else ()
    if path.suffix.lower() in METAIMAGE:
        _check_understood(image, path)
    return Raster(array, geometry, oriented=oriented, findings=(*left_out, *findings))


def _read(path: Path) -> tuple[ImageFileReader, NDArray]:
    """The header, checked to be one volume of plain numbers, and then its voxels."""
    _check_dimensions(path)
    data = data_file(path)  # before ITK, which opens whatever file a NRRD header names
    reader = ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_shape(reader, path)
        return reader, _voxels(reader, path, data)
    except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
        raise CaseError(
            f"{path.name} is damaged, cut short or no {path.suffix} file ({_last_line(error)!r}); "
            "copy or export it again."
        ) from error


def _voxels(reader: ImageFileReader, path: Path, data: DataFile) -> NDArray:
    """The voxels; refuses a header that promises more of them than the file can hold, before memory is asked for."""
    kind = NUMBER_TYPES.get(reader.GetPixelID())
    if kind is None:
        raise CaseError(f"{path.name}: voxels of type {reader.GetPixelIDValue()} are no plain numbers; it is no CT.")
    shape = reader.GetSize()[::-1]
    promised = math.prod(shape) * np.dtype(kind).itemsize
    held = data.path.stat().st_size * (BEST_RATIO[data.packed] if data.packed else MOST_BYTES_A_LETTER)
    if promised > held:
        raise CaseError(f"{path.name}: the header promises {promised} bytes, the file holds fewer; copy it again.")
    extra = data.path.stat().st_size - data.start - promised
    if data.plain and extra > 0:
        raise CaseError(f"{path.name}: {extra} bytes more than its header promises follow it; export it again.")
    if data.packed:
        return read_packed(data, shape, kind, path.name)
    return GetArrayFromImage(reader.Execute())


def _check_dimensions(path: Path) -> None:
    """Refuses a MetaImage header with an impossible number of dimensions, which would end the process inside ITK."""
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    with path.open("rb") as stream:
        stated = re.search(rb"^\s*NDims\s*=\s*([^\r\n]*)", stream.read(4096), re.MULTILINE)
    number = stated.group(1).decode("ascii", "replace").strip() if stated else "(none)"
    if number not in ("1", "2", "3", "4", "5"):
        raise CaseError(
            f"{path.name}: its header states NDims = {number[:20]!r}; it is damaged, copy or export it again."
        )


def _check_shape(reader: ImageFileReader, path: Path) -> None:
    """Refuses what is not one three-dimensional volume of plain numbers."""
    size, dimension = reader.GetSize(), reader.GetDimension()
    sizes = " x ".join(str(n) for n in size)
    if dimension < 3 or min(size) < 1:
        raise CaseError(f"{path.name} is {dimension}-D ({sizes}); a CT volume has three axes.")
    if any(n > 1 for n in size[3:]):
        raise CaseError(f"{path.name} is {dimension}-D ({sizes}: several volumes in one file); give one file a volume.")
    if reader.GetNumberOfComponents() != 1:
        raise CaseError(
            f"{path.name} holds {reader.GetNumberOfComponents()} numbers a voxel (a colour picture?); a CT holds one."
        )


def _check_understood(image: ImageFileReader, path: Path) -> None:
    """Refuses a MetaImage header of which ITK passed over a line, as it does behind one that it does not understand."""
    size = image.GetDimension()
    turn = np.asarray(image.GetDirection()).reshape(size, size)
    taken = {"DimSize": image.GetSize(), "ElementSpacing": image.GetSpacing()}
    taken |= dict.fromkeys(("Offset", "Position", "Origin"), image.GetOrigin())
    taken |= dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), turn.T.ravel())
    for key, numbers in metaimage_numbers(path):
        if key in taken and not (len(numbers) == len(taken[key]) and np.allclose(numbers, taken[key], 1e-5, 1e-5)):
            shown = " ".join(f"{number:g}" for number in taken[key])
            raise CaseError(f"{path.name}: its {key} is read as {shown}; it is damaged, copy or export it again.")


def _is_oriented(image: ImageFileReader, path: Path) -> bool:
    """False for a NRRD without a space; refuses a space that ITK passes on unconverted."""
    if path.suffix.lower() not in (".nrrd", ".nhdr"):
        return True
    space = image.GetMetaData("NRRD_space") if image.HasMetaDataKey("NRRD_space") else ""
    if space and space not in KNOWN_SPACES:
        raise CaseError(
            f"{path.name}: space '{space}' is not one of {', '.join(sorted(KNOWN_SPACES))}; save it as LPS."
        )
    return bool(space)


def _last_line(error: BaseException) -> str:
    """The last line of ITK's message: the cause, without source paths."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].strip()[-160:]
