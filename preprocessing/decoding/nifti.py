"""NIfTI-1/2 files (.nii, .nii.gz, .hdr + .img): values, and which of their two affines to believe.

The sform is taken where its code is set, else the qform. Where both are set and disagree by more than half a voxel the
sform wins with a finding, unless they disagree on orientation: then left and right are not known and the file is
refused, as is an image that sets neither (readers differ: nibabel and ITK orient it differently).
"""

import gzip
import zlib
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from preprocessing.case import CaseError
from preprocessing.decoding.nifti_extensions import check_extensions
from preprocessing.decoding.raster import INT16, MAX_VOXELS, Raster, checked_geometry

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
GZIP_BEST_RATIO = 1100  # deflate cannot pack tighter
MOST_LEFT_OVER = 1 << 28
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    MemoryError,
    ImageFileError,
    zlib.error,
)
READ_ERRORS += (cast(type[Exception], isal_zlib.error),)  # its stub takes the class for an instance


def read_nifti(path: Path) -> Raster:
    """The values (z, y, x), scaled by slope and intercept, and the geometry of one NIfTI file.

    Raises:
        CaseError: unreadable, truncated, not three-dimensional, or of unknown orientation.
    """
    image = _open(path)
    header = image.header
    try:
        array, left_over = _values(image, path)
        affine, notes = _affine(header, path.name)
    except (*READ_ERRORS, HeaderDataError) as error:
        raise CaseError(f"{path.name}: damaged or cut short ({_reason(error)!r}); copy or export it again.") from error
    oriented = affine is not None
    if affine is None:
        affine = header.get_base_affine()
    matrix = (RAS_TO_LPS @ affine[:3, :3])[::-1, ::-1]
    origin = (RAS_TO_LPS @ affine[:3, 3])[::-1]
    geometry, found = checked_geometry(array.shape, matrix, origin, path.name)
    return Raster(array, geometry, oriented=oriented, findings=(*left_over, *notes, *found))


def _open(path: Path) -> nib.Nifti1Pair:
    """The image with its data still on disk; refuses what is no NIfTI and what cannot be a volume."""
    try:
        check_extensions(path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path)
        image = nib.load(path)
    except (*READ_ERRORS, HeaderDataError) as error:
        raise CaseError(
            f"{path.name} is not a readable NIfTI file ({_reason(error)!r}; it begins with {_first_bytes(path)!r}); "
            "export it again or take it out of the folder."
        ) from error
    if not isinstance(image, nib.Nifti1Pair):
        raise CaseError(
            f"{path.name} is {type(image).__name__}, which does not store left and right; convert it to NIfTI."
        )
    return image


def _values(image: nib.Nifti1Pair, path: Path) -> tuple[NDArray, tuple[str, ...]]:
    """Stored values times slope plus intercept, as (z, y, x), and a finding of what follows them.

    Integers stay integers where that is exact.
    """
    shape = _three_dimensions(image.shape, path)
    proxy: Any = image.dataobj
    kind = np.dtype(image.get_data_dtype())
    if kind.kind not in "iuf":
        raise CaseError(f"{path.name}: voxels of type {kind} are colours or complex numbers, not HU; it is no CT.")
    if image.header.is_single and proxy.offset < image.header.single_vox_offset:
        raise CaseError(
            f"{path.name}: its voxels are said to begin at byte {proxy.offset}, inside its header; export it again."
        )
    _check_bytes(image, shape, path)
    raw, left_over = _stored(image, shape, path)
    found = (f"{left_over} bytes follow the voxels and were not read",) if left_over else ()
    slope, intercept = float(proxy.slope), float(proxy.inter)
    if (slope, intercept) == (1.0, 0.0):
        return raw, found
    if slope == 1.0 and raw.dtype == np.int16 and _fits(raw, intercept):
        raw += np.int16(intercept)
        return raw, found
    whole = raw.dtype.kind != "f" and slope.is_integer() and intercept.is_integer()
    kind = np.int32 if whole and abs(slope) < 1e4 > abs(intercept) else np.float32
    out = raw.astype(kind, copy=False)
    del raw
    out *= kind(slope)
    out += kind(intercept)
    return out, found


def _stored(image: nib.Nifti1Pair, shape: tuple[int, int, int], path: Path) -> tuple[NDArray, int]:
    """The numbers in the file as (z, y, x) of `shape` (x, y, z), and how many bytes follow them.

    They are in this machine's byte order, doubles become floats. They are read piece by piece, and what follows to its
    end, so that the checksum of a gzip file is compared.
    """
    proxy: Any = image.dataobj
    kind = proxy.dtype
    data = Path(image.file_map["image"].filename or path)
    out = np.empty(shape[::-1], np.float32 if kind == np.float64 else kind.newbyteorder("="))
    with igzip.open(data) if data.suffix.lower() == ".gz" else data.open("rb") as stream:
        stream.seek(proxy.offset)
        for plane in out:
            if plane.dtype == kind:
                _fill(plane, stream)
            else:
                piece = np.empty(plane.shape, kind)
                _fill(piece, stream)
                plane[...] = piece
        return out, _left_over(stream)


def _left_over(stream: Any) -> int:
    """How many bytes are left; a file that unpacks without end is not followed."""
    count = 0
    while piece := stream.read(1 << 20):
        count += len(piece)
        if count > MOST_LEFT_OVER:
            raise ValueError(f"more than {MOST_LEFT_OVER} bytes follow its voxels")
    return count


def _fill(array: NDArray, stream: Any) -> None:
    """Reads the bytes of a C-contiguous array."""
    target = array.data.cast("B")
    while target:
        count = stream.readinto(target)
        if not count:
            raise EOFError(f"{len(target)} bytes of its voxels are missing")
        target = target[count:]


def _fits(raw: NDArray, intercept: float) -> bool:
    """True where adding a whole intercept stays within int16."""
    low, high = float(raw.min()) + intercept, float(raw.max()) + intercept
    return float(intercept).is_integer() and abs(intercept) <= INT16.max and low >= INT16.min and high <= INT16.max


def _three_dimensions(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """The shape (x, y, z) without trailing axes of length one."""
    kept = list(shape)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    sizes = " x ".join(str(n) for n in shape)
    if len(kept) > 3:
        raise CaseError(f"{path.name} is {len(kept)}-D ({sizes}: several volumes in one file); give one file a volume.")
    if len(kept) < 3 or min(kept) < 1:
        raise CaseError(f"{path.name} is {len(kept)}-D ({sizes}); a CT volume has three axes.")
    return kept[0], kept[1], kept[2]


def _check_bytes(image: nib.Nifti1Pair, shape: tuple[int, ...], path: Path) -> None:
    """Refuses a header that promises more voxels than the file can hold, before memory is asked for."""
    voxels = int(np.prod([int(n) for n in shape]))
    promised = voxels * np.dtype(image.get_data_dtype()).itemsize
    data = Path(image.file_map["image"].filename or path)
    held = data.stat().st_size * (GZIP_BEST_RATIO if data.suffix == ".gz" else 1)
    if promised > held or voxels > MAX_VOXELS:
        raise CaseError(f"{path.name}: the header promises {promised} bytes, the file holds fewer; copy it again.")


def _affine(header: nib.Nifti1Header, name: str) -> tuple[NDArray | None, list[str]]:
    """The affine (4×4, RAS) to believe, None where neither is set, and what is odd about it."""
    sform, qform = _usable(header.get_sform(coded=True)[0]), _qform(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    if sform is None:
        return qform, (["sform is set but not usable; qform taken"] if codes[0] > 0 and qform is not None else [])
    if qform is None:
        return sform, []
    corner = np.append(np.asarray(header.get_data_shape()[:3], float) - 1, 1.0)
    apart = max(np.abs((sform - qform)[:3, 3]).max(), np.abs(((sform - qform) @ corner)[:3]).max())
    if apart <= 0.5 * float(np.linalg.norm(sform[:3, :3], axis=0).min()):
        return sform, []
    if nib.aff2axcodes(sform) != nib.aff2axcodes(qform):
        raise CaseError(
            f"{name}: sform says axes {''.join(map(str, nib.aff2axcodes(sform)))}, qform says "
            f"{''.join(map(str, nib.aff2axcodes(qform)))}; which side is left is not known: set one of the codes to 0."
        )
    return sform, [f"sform and qform lie up to {apart:.1f} mm apart; sform taken"]


def _qform(header: nib.Nifti1Header) -> NDArray | None:
    """The qform where it is set and its quaternion is one."""
    try:
        return _usable(header.get_qform(coded=True)[0])
    except (HeaderDataError, ValueError):
        return None


def _usable(affine: NDArray | None) -> NDArray | None:
    """The affine, None where it is unset, not finite or flat."""
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return None
    return np.asarray(affine, float)


def _first_bytes(path: Path) -> bytes:
    """The first bytes of what the file holds, unpacked where it is gzip."""
    try:
        with path.open("rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            return stream.read(12)
    except READ_ERRORS:
        return b""


def _reason(error: BaseException) -> str:
    """The first line of an error, short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
