"""Lesions of the phantom: nodules in the lung, lesions of the liver, enlarged lymph nodes, with their mask.

A lesion changes the image and the lesion mask; the anatomy map keeps the organ it lies in.
"""

import numpy as np
from numpy.typing import NDArray

from preprocessing.anatomy import BODY, class_ids
from preprocessing.sources.phantom.canvas import Canvas, Field, ellipsoid
from preprocessing.sources.phantom.patient import Lesion, Scan

_MEDIASTINAL = ((486, 0, -20), (500, 2, -18), (446, 24, 2), (472, -4, 34), (516, -20, 16), (452, -2, -22))
_ABDOMINAL = ((205, 3, 27), (178, 2, 25), (190, 1, -40), (226, 8, 27), (84, 26, -38), (80, 26, 38))


def paint_lesions(canvas: Canvas, scan: Scan) -> NDArray[np.uint8]:
    """Paint the scan's lesions; returns their mask, 0/1 on the canvas' grid."""
    mask = np.zeros(canvas.labels.shape, np.uint8)
    for lesion in scan.lesions:
        rng = np.random.default_rng(lesion.seed)
        centre = _centre(canvas, lesion, rng)
        field = _lump(canvas, centre, lesion.radius_mm, rng)
        host = _host(canvas, lesion, field)
        canvas.paint(field, _layers(scan, lesion), only=host)
        mask[field.box] |= (field.mm < 0) & host
    return mask


def _centre(canvas: Canvas, lesion: Lesion, rng: np.random.Generator) -> NDArray[np.float64]:
    """A place in mm deep enough in the organ, or one of the lymph node stations."""
    if lesion.kind in ("mediastinal_node", "abdominal_node"):
        stations = _MEDIASTINAL if lesion.kind == "mediastinal_node" else _ABDOMINAL
        return np.asarray(stations[int(rng.integers(len(stations)))]) + rng.normal(0, 3, 3)
    organ = canvas.organs["lung" if lesion.kind == "lung_nodule" else "liver"]
    deep = np.flatnonzero(organ.mm < min(-0.8 * lesion.radius_mm, organ.mm.min() * 0.6))
    place = deep[int(rng.integers(len(deep)))] if len(deep) else int(organ.mm.argmin())
    return np.array([grid.flat[place] for grid in canvas.at(organ.box)], float)


def _lump(canvas: Canvas, centre: NDArray, radius: float, rng: np.random.Generator) -> Field:
    """An ellipsoid with a lobed surface."""
    field = ellipsoid(canvas, centre, radius * rng.uniform(0.85, 1.2, 3))
    mm = field.mm
    for grid, middle in zip(canvas.at(field.box), centre, strict=True):
        lobes = np.sin((grid - middle) * (rng.uniform(3, 6) / radius) + rng.uniform(0, 6))
        mm = mm + (0.07 * radius * lobes).astype(np.float32)
    return Field(field.box, mm)


def _host(canvas: Canvas, lesion: Lesion, field: Field) -> NDArray[np.bool_]:
    """Where a lesion of this kind may grow."""
    labels = canvas.labels[field.box]
    if lesion.kind == "lung_nodule":
        return (labels >= class_ids()["lung_upper_lobe_left"]) & (labels <= class_ids()["lung_lower_lobe_right"])
    if lesion.kind == "liver_lesion":
        return labels == class_ids()["liver"]
    return (labels == BODY) & (canvas.hu[field.box] > -250)


def _layers(scan: Scan, lesion: Lesion) -> tuple[tuple[float, float], ...]:
    hu = scan.hu
    if lesion.kind == "lung_nodule":
        core = hu["nodule"] - (70 if lesion.contrast_hu > 0 else 0)
        return (0, hu["nodule"]), (0.55 * lesion.radius_mm, core)
    if lesion.kind == "liver_lesion":
        return (0, hu["liver"] + 0.6 * lesion.contrast_hu), (3, hu["liver"] + lesion.contrast_hu)
    enhanced = hu["node"] + 0.25 * (hu["vein"] - 40)
    return ((0, enhanced),)
