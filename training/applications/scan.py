"""One's own CT: found, read and prepared like any case at a model's spacing, and changed in its own grid.

The CT is converted into a scratch lake by the same steps that made the training data, so it meets the same audit of its
Hounsfield values, the same search for regions, the same body mask. What a model changes goes back as a change: voxels
that it never saw, or that lie outside a region's HU window, keep their value to the bit.
"""

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from infra.errors import UserError
from infra.lake import Lake, open_lake
from preprocessing.case import Case, CaseError, RegionName
from preprocessing.convert import convert_case
from preprocessing.decoding.decode import image_suffix, read_image
from preprocessing.encoding.write import IMAGES, MASKS, require_output, write_image, write_mask
from preprocessing.geometry import Geometry
from preprocessing.quality import as_stored, audit, in_scale_of
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS, RegionExtent
from preprocessing.sources.folder import FolderSource
from preprocessing.store import StoredCase, open_case
from preprocessing.volume import Volume


@dataclass(frozen=True)
class Scan:
    """A CT in the scanner's grid (`volume` in HU, `as_read` before its audit), and stored at the model's spacing."""

    case: Case
    as_read: Volume
    volume: Volume
    stored: StoredCase

    @property
    def regions(self) -> tuple[RegionExtent, ...]:
        """The regions that were found in it or declared."""
        return self.stored.record.regions


@dataclass(frozen=True)
class Change:
    """What a model changes within one region: HU to be added (Z, Y, X), on the region's slices of the stored grid."""

    extent: RegionExtent
    hu_ZYX: NDArray[np.float32]


def find_case(path: Path, region: RegionName | None = None) -> Case:
    """The one CT that a path holds: an image file, or a folder with one image or DICOM series.

    Raises:
        UserError: there is none, several, or it cannot be used.
    """
    if not path.exists():
        raise UserError(f"{path} is not there; give a CT file or a folder with one DICOM series")
    declared = (region,) if region else ()
    if path.is_file():
        if not image_suffix(path):
            raise UserError(f"{path.name} is no NIfTI, NRRD or MetaImage file; for DICOM give the folder of its series")
        return Case(source="folder", id=path.name, patient=path.name, image=(str(path),), declared_regions=declared)
    cases = FolderSource(path=str(path)).cases()
    usable = [case for case in cases if not case.problem]
    if len(usable) != 1:
        what = f"{len(usable)} CTs ({', '.join(c.id for c in usable[:5])})" if usable else f"no CT ({cases[0].problem})"
        raise UserError(f"{path} holds {what}; give one file or the folder of one series")
    return usable[0].replace(declared_regions=declared or usable[0].declared_regions)


def prepare(case: Case, recipe: Recipe, scratch: Lake) -> Scan:
    """The CT at the recipe's spacing in a scratch lake, with its regions.

    Raises:
        UserError: it is no CT, its values are no HU, or no region of it is known.
    """
    where = Path(case.image[0])
    source = FolderSource(path=str(where.parent))
    row = convert_case(case, source, recipe.replace(segmenter=None), scratch)
    if row.status != "sealed":
        raise UserError(f"{case.id}: {row.reason}")
    stored = open_case(scratch, row.key)
    if not stored.record.regions:
        findings = "; ".join(stored.record.findings) or "its image proves none"
        raise UserError(f"{case.id}: which region it shows is not known ({findings}); say it with --region")
    try:
        read = read_image(case)
        return Scan(case, read, audit(read), stored)
    except CaseError as error:
        raise UserError(f"{case.id}: {error}") from None


@contextmanager
def open_scan(given: Path | Case, recipe: Recipe, region: RegionName | None = None) -> Generator[Scan]:
    """The CT of a path, or a case found before, at a model's spacing; what that takes on disk is gone afterwards.

    Raises:
        UserError: as `find_case` and `prepare`.
    """
    with tempfile.TemporaryDirectory(prefix="meddiff-") as scratch:
        case = given if isinstance(given, Case) else find_case(given, region)
        yield prepare(case, recipe, open_lake(scratch))


def require_result(case: Case | None, output: Path, *, overwrite: bool = False, masks: bool = False) -> None:
    """Refuses an output that could not be written, before any work is done for it.

    Raises:
        UserError: its name says no format, it may not be replaced, or it would be DICOM and the case is none.
    """
    try:
        require_output(case, output, MASKS if masks else IMAGES, overwrite=overwrite)
    except CaseError as error:
        raise UserError(str(error)) from None


def write_result(
    scan: Scan,
    hu: NDArray,
    output: Path,
    derivation: str,
    *,
    geometry: Geometry | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Writes HU on the scan's own grid or another; on its own, unchanged voxels keep the numbers that its file stores.

    Where the audit mended the scale of the file, the result has the scale of the file. Returns findings.

    Raises:
        UserError: the output cannot be written.
    """
    whole = hu if hu.dtype == np.int16 else np.rint(hu).astype(np.int16)
    if geometry is None:
        stored = as_stored(whole, scan.volume, scan.as_read.image)
    else:
        stored = in_scale_of(whole, scan.volume.audit)
    try:
        return write_image(scan.case, stored, output, derivation, geometry=geometry, overwrite=overwrite)
    except CaseError as error:
        raise UserError(str(error)) from None


def write_masks(scan: Scan, masks: Mapping[str, NDArray], output: Path, *, overwrite: bool = False) -> None:
    """Writes named masks on the scan's own grid as one label map, or as a DICOM SEG (.dcm) of a DICOM series.

    Raises:
        UserError: the output cannot be written.
    """
    try:
        write_mask(scan.case, masks, output, overwrite=overwrite)
    except CaseError as error:
        raise UserError(str(error)) from None


def apply_changes(scan: Scan, changes: Sequence[Change]) -> NDArray[np.int16]:
    """The scan's HU (z, y, x, its own grid) with what was changed; where regions overlap they fade into each other."""
    source, grid = scan.volume, scan.stored.geometry(0)
    total = np.zeros(source.image.shape, np.float32)
    for change, weight_Z in zip(changes, fading(changes), strict=True):
        part = (change.hu_ZYX * weight_Z[:, None, None]).astype(np.float32)
        moved = onto(part, shifted(grid, change.extent), source.geometry)
        window = WINDOWS[change.extent.name]
        total += np.where((source.image > window.low_hu) & (source.image < window.high_hu), moved, 0)
    return np.rint(source.image + total).clip(-32768, 32767).astype(np.int16)


def fading(changes: Sequence[Change]) -> list[NDArray[np.float64]]:
    """Each change's weight along z: the weights of all sum to 1 in every slice that any of them covers."""
    stop = max(change.extent.z_stop for change in changes)
    bells = np.zeros((len(changes), stop))
    for bell, change in zip(bells, changes, strict=True):
        start, end = change.extent.z_start, change.extent.z_stop
        z = np.arange(start, end)
        bell[start:end] = np.minimum(z - start + 1, end - z)
    total = np.maximum(bells.sum(0), 1e-9)
    return [
        bell[c.extent.z_start : c.extent.z_stop] / total[c.extent.z_start : c.extent.z_stop]
        for bell, c in zip(bells, changes, strict=True)
    ]


def shifted(grid: Geometry, extent: RegionExtent) -> Geometry:
    """The geometry of a region's slices of a stored volume."""
    depth = extent.z_stop - extent.z_start
    origin = tuple(grid.world((extent.z_start, 0, 0)).tolist())
    return Geometry((depth, *grid.shape[1:]), grid.spacing_mm, origin, grid.direction)


def onto(array_ZYX: NDArray, grid: Geometry, target: Geometry, nearest: bool = False) -> NDArray[np.float32]:
    """An array of one geometry at the voxels of another, in any direction: linear or nearest, 0 outside, float32."""
    inverse = np.linalg.inv(grid.matrix)
    out, offset, order = np.empty(target.shape, np.float32), grid.index(target.origin_mm), 0 if nearest else 1
    ndimage.affine_transform(array_ZYX, inverse @ target.matrix, offset, output=out, order=order, mode="constant")
    return out
