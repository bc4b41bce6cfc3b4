"""Writing: a result on a user's own CT, as a file or a series that says what it is and lies where the CT lies.

Two functions: an image in HU, and masks. On the grid of the decoded CT a result in the CT's own format keeps its
header, its axes and the stored numbers of every voxel whose HU did not change. In another format, or on another grid,
it is int16 HU with a header of its own. Only what was DICOM can become DICOM: nobody else knows the patient.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import Case, CaseError
from preprocessing.decoding.decode import image_suffix, read_image
from preprocessing.decoding.itk import read_itk
from preprocessing.decoding.text_headers import METAIMAGE, NRRD
from preprocessing.encoding.derived import MAKER, WARNING, Derivation
from preprocessing.encoding.itk import write_itk
from preprocessing.encoding.nifti import stored_values, write_nifti
from preprocessing.encoding.output import ITK, NIFTI, SEGMENTATION, SERIES, check_free, output_format, whole
from preprocessing.encoding.segmentation import write_segmentation
from preprocessing.encoding.series import write_changed, write_regridded
from preprocessing.encoding.source_slices import is_one_to_one, source_slices
from preprocessing.encoding.values import Scale, checked_hu, checked_mask, numbered, scale_of, with_changes
from preprocessing.geometry import Geometry

IMAGES, MASKS = (*NIFTI, *ITK, SERIES), (*NIFTI, *ITK, SEGMENTATION)
NOT_DICOM = "its image is no DICOM series, and only one says whose patient and study it is; name a .nii.gz file."


def require_output(case: Case | None, output: Path, endings: Sequence[str] = IMAGES, *, overwrite: bool = False) -> str:
    """The ending of an output that can be written for a case, before anything is computed for it.

    Raises:
        CaseError: it would be DICOM, and the case is none.
        UserError: the output may not be written, or its name says none of these formats.
    """
    ending = output_format(output, endings)
    check_free(output, case.origin if case else (), overwrite=overwrite)
    if ending in (SERIES, SEGMENTATION) and (case is None or image_suffix(case.image[0])):
        raise CaseError(f"{case.id if case else output.name}: {NOT_DICOM}")
    return ending


def write_image(
    case: Case | None,
    hu_ZYX: NDArray,
    output: Path,
    derivation: str,
    *,
    geometry: Geometry | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Writes HU (z, y, x) as .nii, .nii.gz, .nrrd, .mha or, where the name has no ending, as a folder of DICOM slices.

    The grid is that of `read_image(case)`, whose HU tell which voxels have changed, or `geometry`; without a case
    (a synthetic volume) `geometry` must be given. `derivation` says in a sentence how the result was made.
    Returns findings.

    Raises:
        CaseError: the case cannot be read, the HU are not finite or of another shape, or DICOM is asked for elsewhere.
        UserError: the output may not or cannot be written, or its name says no format.
    """
    ending = require_output(case, output, IMAGES, overwrite=overwrite)
    source = None if case is None else read_image(case)
    grid = _grid(source.geometry if source else None, geometry)
    hu = checked_hu(hu_ZYX, grid.shape, case.id if case else output.name)
    made = _derivation(case, derivation, hu, grid)
    before = source.image if source and grid == source.geometry else None
    with whole(output) as partial:
        if case and ending == SERIES:
            return _write_series(partial, case, before, hu, grid, made)
        _write_file(partial, case, before, hu, grid, made.description)
    return ()


def write_mask(
    case: Case | None,
    masks: Mapping[str, NDArray],
    output: Path,
    *,
    geometry: Geometry | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Writes named masks (z, y, x; 0/1) as .nii, .nii.gz, .nrrd, .mha or, for a DICOM case, as a SEG (.dcm).

    Names are those of `classes.csv`, "lesion", "liver_lesion" or any other; the n-th mask is value or segment n, which
    is returned. In a SEG masks may overlap. The grid is as in `write_image`.

    Raises:
        CaseError: the case cannot be read, a mask is none or of another shape, masks overlap in a file of one value a
            voxel, or a SEG is asked for elsewhere.
        UserError: the output may not or cannot be written, or its name says no format.
    """
    ending = require_output(case, output, MASKS, overwrite=overwrite)
    own = None if case is None else read_image(case).geometry
    grid, name = _grid(own, geometry), case.id if case else output.name
    if not masks:
        raise CaseError(f"{name}: no mask is given; there is nothing to write.")
    held = {label: checked_mask(mask, grid.shape, f"{name}: {label}") for label, mask in masks.items()}
    values = {label: number for number, label in enumerate(held, 1)}
    labels = numbered(held, name) if ending != SEGMENTATION else np.stack(list(held.values()))
    with whole(output) as partial:
        if case and ending == SEGMENTATION:
            write_segmentation(partial, case, held, grid, _derivation(case, ", ".join(held), labels, grid))
            return values
        like = (grid == own and _like(case, partial)) or grid
        note = f"{MAKER} masks, {WARNING}: {', '.join(f'{value} {label}' for label, value in values.items())}"
        if ending in NIFTI:
            write_nifti(partial, labels, like, note, labels=True)
        else:
            write_itk(partial, labels, like, note, values)
    return values


def _write_series(
    folder: Path,
    case: Case,
    before: NDArray[np.int16] | None,
    hu: NDArray[np.int16],
    grid: Geometry,
    derivation: Derivation,
) -> tuple[str, ...]:
    """The series, slice for slice where the grid is that of its slices; findings."""
    if before is not None and is_one_to_one(source_slices(case)):
        clipped, findings = write_changed(folder, case, before, hu, derivation), ()
    else:
        clipped = write_regridded(folder, case, hu, grid, derivation)
        findings = ("the grid is not that of the source's slices: each was written with the header of the nearest",)
    note = f"{clipped} voxels lay outside what the source's slices can store and were clipped"
    return (*findings, note) if clipped else findings


def _write_file(
    path: Path, case: Case | None, before: NDArray[np.int16] | None, hu: NDArray[np.int16], grid: Geometry, note: str
) -> None:
    """A file like the source's where it has its format and its grid, else a plain one."""
    like = _like(case, path) if before is not None else None
    nifti = image_suffix(path) == ".nii"
    if case is None or before is None or like is None:
        write_nifti(path, hu, grid, note) if nifti else write_itk(path, hu, grid, note)
    elif nifti:
        stored, slope, intercept = stored_values(like)
        changed = with_changes(stored, before, hu, scale_of(case, slope, intercept))
        write_nifti(path, changed, like, note, scale=Scale(slope, intercept))
    else:
        write_itk(path, with_changes(read_itk(like).array, before, hu, scale_of(case, 1.0, 0.0)), like, note)


def _grid(own: Geometry | None, geometry: Geometry | None) -> Geometry:
    """The grid a result lies on."""
    grid = geometry or own
    if grid is None:
        raise CaseError("a result without a case has no grid; give its geometry.")
    return grid


def _derivation(case: Case | None, text: str, array: NDArray, grid: Geometry) -> Derivation:
    digest = hashlib.sha256(repr((case and (case.image, case.stack, case.version), grid)).encode())
    digest.update(np.ascontiguousarray(array).data)
    return Derivation(text, digest.hexdigest())


def _like(case: Case | None, output: Path) -> Path | None:
    """The case's file where the output has its format."""
    suffix = image_suffix(case.image[0]) if case else ""
    families = (".nii", ".hdr", ".img"), (*NRRD, *METAIMAGE)
    same = any(suffix in family and image_suffix(output) in family for family in families)
    return Path(case.image[0]) if case and same else None
