"""Labels on the image's grid: values become class ids, masks become one map, a label that lies elsewhere is refused.

A label may store the same grid along other axes (it is turned, exactly), or with an affine that differs by rounding
(the image's is taken). Anything else is a real mismatch. Where masks overlap, the first in the case's order keeps the
voxel. The parts of a DICOM SEG or RTSTRUCT are drawn on the image's grid one by one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.anatomy import NUM_IDS
from preprocessing.case import LESION, Case, CaseError, LabelFile
from preprocessing.decoding.dicom_header import is_dicom
from preprocessing.decoding.parts import read_parts
from preprocessing.decoding.raster import Raster
from preprocessing.geometry import Geometry
from preprocessing.orient import turn_towards

RELATIVE_TOLERANCE = 1e-3  # of the image's extent
LARGEST_SHIFT = 0.5  # voxels
MAX_VALUE = 65535

Reader = Callable[[str], Raster]
Labels = tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None, tuple[str, ...]]


def read_labels(case: Case, geometry: Geometry, read: Reader) -> Labels:
    """Anatomy (uint8 ids, 0 where unnamed), lesion (uint8 0/1) and findings; None for what the case does not have."""
    anatomy = lesion = None
    findings: list[str] = []
    for label, values in _layers(case, geometry, read, findings):
        if any(id_ != LESION for _, id_ in label.classes):
            anatomy = np.zeros(geometry.shape, np.uint8) if anatomy is None else anatomy
            _paint(anatomy, values, label)
        marked = [value for value, id_ in label.classes if id_ == LESION]
        if marked:
            lesion = np.zeros(geometry.shape, np.uint8) if lesion is None else lesion
            lesion |= np.isin(values, marked).astype(np.uint8)
    return anatomy, lesion, tuple(findings)


def _layers(case: Case, geometry: Geometry, read: Reader, findings: list[str]) -> Iterator[tuple[LabelFile, NDArray]]:
    """Each label file with its values on the image's grid; of a SEG or RTSTRUCT, whose parts may overlap, each part."""
    for label in _label_files(case):
        if Path(label.path).is_file() and is_dicom(Path(label.path)):
            for number, mask in read_parts(label, geometry, findings):
                pairs = tuple((1, id_) for value, id_ in label.classes if value == number)
                yield label.replace(classes=pairs), mask
            continue
        values = whole_values(label.path, geometry, read, findings)
        if label.binary:
            values = (values > 0).astype(np.uint8)
        else:
            findings += _unnamed(label, values)
        yield label, values


def _label_files(case: Case) -> Iterator[LabelFile]:
    yield from case.labels
    for path in case.lesion:
        yield LabelFile(path=path, classes=((1, LESION),), binary=True)


def _paint(anatomy: NDArray[np.uint8], values: NDArray, label: LabelFile) -> None:
    """Writes the class ids of a label file into the voxels of `anatomy` that are still free."""
    table = np.zeros(MAX_VALUE + 1, np.uint8)
    for value, id_ in label.classes:
        if id_ != LESION and 0 < id_ < NUM_IDS:
            table[value] = id_
    for plane, own in zip(anatomy, values, strict=True):
        named = table.take(own if own.dtype.kind == "u" else np.maximum(own, 0))
        np.copyto(plane, named, where=plane == 0 if plane.any() else True)


def _unnamed(label: LabelFile, values: NDArray) -> list[str]:
    """A finding where a label file holds values that nobody has named."""
    known = {0, *(value for value, _ in label.classes)}
    found = {value for plane in values for value in _values_of(plane)}
    strangers = sorted({value for value in found if value > 0 or value == min(found)} - known)
    if not strangers:
        return []
    shown = ", ".join(map(str, strangers[:10])) + (", …" if len(strangers) > 10 else "")
    return [f"{Path(label.path).name} holds values without a declared meaning ({shown}): left unnamed"]


def _values_of(plane: NDArray) -> set[int]:
    """The values of a slice; labels come in runs, so only the first of every run is looked at."""
    flat = plane.ravel()
    return set(flat[:1].tolist()) | set(np.unique(flat[1:][flat[1:] != flat[:-1]]).tolist())


def whole_values(path: str, geometry: Geometry, read: Reader, findings: list[str]) -> NDArray:
    """A label file's values (z, y, x) as integers on the image's grid; what was odd is added to `findings`.

    Raises:
        CaseError: unreadable, not whole numbers, or on another grid.
    """
    raster = read(path)
    values = raster.array
    if values.dtype.kind == "f":
        whole = np.rint(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
        if (
            np.abs(whole - values)[np.isfinite(values)].max(initial=0) > 1e-3
            or np.abs(whole).max(initial=0) > MAX_VALUE
        ):
            raise CaseError(f"{Path(path).name} holds fractions or huge numbers; a label map holds whole numbers.")
        values = whole.astype(np.int32)
    if values.size and int(values.max()) > MAX_VALUE:
        raise CaseError(f"{Path(path).name} holds the value {int(values.max())}; a label map holds 0 to {MAX_VALUE}.")
    return _on_grid(replace(raster, array=values), geometry, Path(path).name, findings)


def _on_grid(raster: Raster, geometry: Geometry, name: str, findings: list[str]) -> NDArray:
    """The label's array turned to the image's axes; refuses a grid that is not the image's."""
    if not raster.oriented and raster.array.shape == geometry.shape:
        findings.append(f"{name} carries no orientation; the image's was taken")
        return raster.array
    turn = turn_towards(raster.geometry, geometry.direction)
    own = turn.geometry(raster.geometry)
    apart = np.abs(own.corners() - geometry.corners()).max()
    extent = np.ptp(geometry.corners(), axis=0).max()
    if own.shape != geometry.shape or apart > min(
        RELATIVE_TOLERANCE * extent, LARGEST_SHIFT * min(geometry.spacing_mm)
    ):
        raise CaseError(_mismatch(name, raster.geometry, geometry))
    return turn.array(raster.array)


def _mismatch(name: str, own: Geometry, geometry: Geometry) -> str:
    """The sentence that shows both grids."""

    def shown(g: Geometry) -> str:
        numbers = [", ".join(f"{v:.4g}" for v in triple) for triple in (g.spacing_mm, g.origin_mm)]
        return f"shape {g.shape}, spacing ({numbers[0]}) mm, origin ({numbers[1]}) mm"

    return (
        f"{name} does not lie on its image's grid (z, y, x): label {shown(own)}; image {shown(geometry)}; "
        "resample the label to the image."
    )
