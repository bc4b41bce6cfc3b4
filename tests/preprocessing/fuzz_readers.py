"""What a worker of the fuzz test does with one input: our decoder, and readers that share no code with it."""

import re
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import SimpleITK as sitk

from infra.lake import open_lake
from preprocessing.case import Case, CaseError
from preprocessing.convert import convert_case
from preprocessing.decoding.decode import decode_image
from preprocessing.geometry import Geometry
from preprocessing.quality import audit
from preprocessing.recipe import Recipe
from preprocessing.sources.folder import FolderSource
from preprocessing.store import open_case
from preprocessing.volume import Volume

Reading = tuple[np.ndarray, np.ndarray, np.ndarray]  # values (z, y, x), matrix (columns z, y, x; LPS), origin (z, y, x)
RECIPE = Recipe(name="fuzz", spacing_mm=4.0, levels=1, thumbnail_size=8, chunk=16, shard=32)
METAIO_TYPES = {"MET_SHORT": "i2", "MET_USHORT": "u2", "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_INT": "i4"}
METAIO_TYPES |= {"MET_UINT": "u4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8", "MET_LONG": "i4", "MET_ULONG": "u4"}
METAIO_TYPES |= {"MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8"}


def judge(paths: list[str]) -> tuple[str, object]:
    """("refused", reason), ("accepted", reading) or ("broken", what was raised) of one image."""
    try:
        decoded = decode_image(paths)
        volume = audit(Volume(decoded.array, decoded.geometry))
    except CaseError as error:
        return "refused", str(error)
    except Exception as error:  # noqa: BLE001 - whatever else is raised is the finding
        return "broken", f"{type(error).__name__}: {error}"
    geometry = decoded.geometry
    return "accepted", (volume.image, geometry.matrix, np.asarray(geometry.origin_mm), geometry.to_dict())


def seal(paths: list[str], lake_folder: str) -> tuple[str, object]:
    """("sealed", (stored image, spacing, origin)) or ("quarantined", reason) after the whole conversion."""
    lake, source = open_lake(lake_folder), FolderSource(path=str(Path(paths[0]).parent))
    case = Case(source="folder", id="fuzz", patient="fuzz", image=tuple(paths))
    row = convert_case(case, source, RECIPE, lake)
    if row.status != "sealed":
        return row.status, row.reason
    stored = open_case(lake, row.key)
    return row.status, (stored.read_all("image"), stored.geometry(0).spacing_mm, stored.geometry(0).origin_mm)


def read_independently(paths: list[str]) -> list[Reading]:
    """The same image by other readers; those that cannot read it are left out."""
    suffix = Path(paths[0].removesuffix(".gz")).suffix
    readers = {
        ".nii": [_by_nibabel, _by_itk, _by_qform],
        ".hdr": [_by_nibabel, _by_itk, _by_qform],
        ".nrrd": [_by_pynrrd, _by_itk],
    }
    readers |= {".nhdr": [_by_pynrrd, _by_itk], ".mha": [_by_hand, _by_itk], ".mhd": [_by_hand, _by_itk]}
    out = []
    for read in readers.get(suffix, [_by_gdcm, _by_elements]):
        try:
            array, matrix, origin = read(paths)
            hu = np.clip(np.rint(np.nan_to_num(array, nan=-1024)), -32768, 32767).astype(np.int16)
            geometry = Geometry(hu.shape, (1.0, 1.0, 1.0))
            out.append((audit(Volume(hu, geometry)).image, matrix, origin))
        except Exception:  # noqa: BLE001
            continue
    return out


def _by_nibabel(paths: list[str]) -> Reading:
    image = nib.load(paths[0])
    array = np.asarray(image.get_fdata()).reshape(image.shape[:3])
    affine = np.diag([-1, -1, 1, 1]) @ image.affine
    return array.transpose(2, 1, 0), affine[:3, :3][::-1, ::-1], affine[:3, 3][::-1]


def _by_qform(paths: list[str]) -> Reading:
    """For a header whose sform is no affine at all."""
    image = nib.load(paths[0])
    if np.isfinite(image.affine).all():
        raise ValueError("its sform is usable")
    affine = np.diag([-1, -1, 1, 1]) @ image.get_qform()
    array = np.asarray(image.get_fdata()).reshape(image.shape[:3])
    return array.transpose(2, 1, 0), affine[:3, :3][::-1, ::-1], affine[:3, 3][::-1]


def _by_itk(paths: list[str]) -> Reading:
    return _of_itk(sitk.ReadImage(paths[0]))


def _by_gdcm(paths: list[str]) -> Reading:
    """Every file by GDCM on its own, then in order of place; the same place twice counts once."""
    slices = {}
    for path in paths:
        array, matrix, origin = _of_itk(sitk.ReadImage(path))
        slices[round(float(origin[0]), 2)] = (array[0], matrix, origin)
    return _stacked(slices)


def _by_elements(paths: list[str]) -> Reading:
    """Uncompressed explicit little-endian slices, element after element, as the DICOM standard lays them out."""
    slices = {}
    for path in paths:
        found = _elements(Path(path).read_bytes()[132:])
        rows, columns = (int.from_bytes(found[0x28, e], "little") for e in (0x10, 0x11))
        slope, intercept = (float(found.get((0x28, e), default)) for e, default in ((0x1053, b"1"), (0x1052, b"0")))
        pixels = np.frombuffer(found[0x7FE0, 0x10], "<u2", rows * columns).reshape(rows, columns)
        place, turn, step = (
            [float(v) for v in found[key].split(b"\\")] for key in ((0x20, 0x32), (0x20, 0x37), (0x28, 0x30))
        )
        matrix = np.zeros((3, 3))
        matrix[:, 1], matrix[:, 2] = np.array(turn[3:])[::-1] * step[0], np.array(turn[:3])[::-1] * step[1]
        slices[round(place[2], 2)] = (pixels * slope + intercept, matrix, np.array(place)[::-1])
    return _stacked(slices)


def _elements(data: bytes) -> dict[tuple[int, int], bytes]:
    """Up to the pixels."""
    found, at = {}, 0
    while (0x7FE0, 0x10) not in found:
        tag = int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
        wide = data[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        length = int.from_bytes(data[at + 8 : at + 12] if wide else data[at + 6 : at + 8], "little")
        at += 12 if wide else 8
        if at + length > len(data):
            raise EOFError
        found[tag] = data[at : at + length].strip(b"\0 ") if tag != (0x7FE0, 0x10) else data[at : at + length]
        at += length
    return found


def _stacked(slices: dict[float, Reading]) -> Reading:
    arrays, matrices, origins = zip(*(slices[z] for z in sorted(slices)), strict=True)
    matrix = matrices[0].copy()
    matrix[:, 0] = (origins[-1] - origins[0]) / (len(origins) - 1)
    return np.stack(arrays), matrix, origins[0]


def _of_itk(image: sitk.Image) -> Reading:
    size = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(size, size)[:3, :3] * np.asarray(image.GetSpacing())[:3]
    array = sitk.GetArrayFromImage(image)
    return array.reshape(array.shape[-3:]), direction[::-1, ::-1], np.asarray(image.GetOrigin())[:3][::-1]


def _by_pynrrd(paths: list[str]) -> Reading:
    array, header = nrrd.read(paths[0])
    signs = {"left": 1, "right": -1, "posterior": 1, "anterior": -1, "superior": 1, "inferior": -1}
    turn = np.diag([signs[word] for word in header["space"].split("-")])
    rows = np.asarray(header["space directions"], float)
    steps = turn @ rows[np.isfinite(rows).all(axis=1)].T
    return np.squeeze(array).transpose(2, 1, 0), steps[::-1, ::-1], (turn @ header["space origin"])[::-1]


def _by_hand(paths: list[str]) -> Reading:
    """MetaImage as its documentation describes it: `Key = value` lines, then the voxels."""
    data = Path(paths[0]).read_bytes()
    lines = re.match(rb"(?:[^\n]*\n)*?\s*ElementDataFile\s*=[^\n]*\n", data).group(0)
    fields = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", lines.decode("latin-1"), re.MULTILINE))
    body = data[len(lines) :]
    if fields["ElementDataFile"] != "LOCAL":
        body = (Path(paths[0]).parent / fields["ElementDataFile"]).read_bytes()
    if fields.get("CompressedData", "False").startswith("T"):
        body = zlib.decompress(body)
    order = ">" if fields.get("BinaryDataByteOrderMSB", "False").startswith("T") else "<"
    shape = [int(n) for n in fields["DimSize"].split()]
    spacing = np.array([float(n) for n in fields.get("ElementSpacing", "1 1 1").split()])
    origin = np.array([float(n) for n in fields.get("Offset", "0 0 0").split()])
    direction = np.array([float(n) for n in fields.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()]).reshape(3, 3)
    array = np.frombuffer(body, order + METAIO_TYPES[fields["ElementType"]])[: int(np.prod(shape))]
    return array.reshape(shape[::-1]), (direction.T * spacing)[::-1, ::-1], origin[::-1]
