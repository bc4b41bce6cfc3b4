"""The phantom's outline: skin, fat, muscle wall and the body cavity, from profiles along the body's axis."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocessing.sources.phantom.canvas import Canvas, Field, ellipsoid, tube
from preprocessing.sources.phantom.patient import Scan

# z: half width, half depth, centre y of the muscle wall; then subcutaneous fat against the patient's fat_mm
_WALL = """
-160 150 84 8 1.0 | -60 156 92 8 1.1 | 0 158 95 8 1.2 | 55 148 95 8 1.2 | 105 136 91 7 1.1 | 160 127 89 5 1.0
210 127 90 4 0.9 | 280 136 96 3 0.7 | 350 143 101 4 0.6 | 420 144 101 4 0.55 | 470 146 96 8 0.5 | 515 140 86 10 0.45
545 112 74 14 0.4 | 570 82 62 17 0.4 | 592 62 57 15 0.4 | 615 55 55 12 0.35 | 645 52 54 9 0.3 | 690 50 56 8 0.25
725 40 44 8 0.2 | 745 0 0 8 0.2
"""
_CAVITY = """
-60 0 0 8 | -40 38 38 8 | 0 58 58 6 | 60 92 62 -4 | 100 112 62 -12 | 160 110 62 -14 | 210 112 66 -12 | 280 121 76 -5
350 127 84 0 | 420 124 84 2 | 470 113 76 7 | 520 93 62 14 | 555 66 46 22 | 580 40 27 27 | 596 0 0 29
"""
_STEP_MM = 2.0
_SQUARE = 0.55  # how far a trunk section goes from an ellipse (0) to a rectangle (1)


class Profile(NamedTuple):
    """Half width, half depth, centre y (mm) and fat share for body z = low + 2·i mm."""

    low: float
    table: NDArray[np.float32]

    def at(self, z: float) -> NDArray[np.float32]:
        """The row at one z."""
        return self.table[int(np.clip((z - self.low) / _STEP_MM, 0, len(self.table) - 1))]


@cache
def profile(name: str) -> Profile:
    """The profile of `wall` or `cavity`, smoothed to a 2 mm table."""
    text = {"wall": _WALL, "cavity": _CAVITY}[name]
    rows = np.array([[float(v) for v in row.split()] for row in text.replace("\n", "|").split("|") if row.strip()])
    z = np.arange(rows[0, 0], rows[-1, 0] + _STEP_MM, _STEP_MM)
    table = np.stack([np.interp(z, rows[:, 0], column) for column in rows.T[1:]], axis=1)
    weights = np.hanning(17)
    padded = np.pad(table, ((8, 8), (0, 0)), mode="edge")
    smooth = [np.convolve(column, weights / weights.sum(), "valid") for column in padded.T]
    return Profile(float(rows[0, 0]), np.stack(smooth, axis=1).astype(np.float32))


def section_radius(sine: NDArray, cosine: NDArray) -> NDArray:
    """How far the trunk's squared-off section reaches beyond its ellipse in a direction, as a factor."""
    q = (sine * cosine) ** 2 * _SQUARE
    return np.where(q < 1e-6, 1.0, np.sqrt((1 - np.sqrt(1 - 4 * q)) / np.maximum(2 * q, 1e-9)))


def trunk(canvas: Canvas, name: str, fat_mm: float = 0.0) -> NDArray[np.float32]:
    """Signed distance in mm over the whole canvas to a profile, widened by fat."""
    low, table = profile(name)
    z = canvas.z[:, :, canvas.z.shape[2] // 2, None]
    row = np.clip((z - np.float32(low)) / np.float32(_STEP_MM), 0, len(table) - 1).astype(np.int16)
    wide, deep = table[:, 0].copy(), table[:, 1].copy()
    if fat_mm:
        share = table[:, 3] * fat_mm
        wide, deep = wide + share, deep + share * np.float32(0.9)
    a, b = np.maximum(wide, 1), np.maximum(deep, 1)
    u = (canvas.x * np.take(1 / a, row)) ** 2
    v = ((canvas.y - np.take(table[:, 2], row)) * np.take(1 / b, row)) ** 2
    k = np.sqrt(u + v - np.float32(_SQUARE) * np.minimum(u, 1) * np.minimum(v, 1))
    ends = np.maximum(low - z, z - np.float32(low + _STEP_MM * (len(table) - 1)))
    return np.maximum((k - 1) * np.take((a + b) / 2, row), ends)


def paint_outline(canvas: Canvas, scan: Scan) -> None:
    """Skin, fat and muscle of the whole body, all of class body."""
    fat, hu = scan.patient.fat_mm, scan.hu
    skin = trunk(canvas, "wall", fat)
    muscle = trunk(canvas, "wall")
    for centre, radii, fat_share, turn in _bulges(scan):
        thick = fat_share * fat + 2
        _join(skin, ellipsoid(canvas, centre, np.asarray(radii) + thick, turn))
        _join(muscle, ellipsoid(canvas, centre, radii, turn))
    for path in _arms(scan):
        _join(skin, tube(canvas, np.add(path, [0, 0, 0, 0.35 * fat])))
        _join(muscle, tube(canvas, path))
    whole = canvas.whole
    canvas.paint(Field(whole, skin), ((0, hu["skin"]), (2, hu["fat"])), "body")
    canvas.paint(Field(whole, np.maximum(muscle, skin + 2)), ((0, hu["muscle"]),))
    _paint_table(canvas, scan)
    canvas.organs["skin"] = Field(whole, skin)


def _paint_table(canvas: Canvas, scan: Scan) -> None:
    """The scanner's table: a thin curved plate under the patient, which no label names."""
    top = np.float32(112 + 0.9 * scan.patient.fat_mm)
    slices, rows, columns = canvas.hu.shape
    pixel = np.float32(scan.geometry.spacing_mm[1])
    row = int(np.searchsorted(canvas.y[slices // 2, :, columns // 2], top))
    y, x = (np.arange(rows) - row) * pixel, (np.arange(columns) - columns // 2) * pixel
    section = np.abs(y[:, None] + x**2 * np.float32(0.0006)) - np.float32(3)
    plate = np.broadcast_to(section.astype(np.float32), canvas.hu.shape)
    canvas.paint(Field(canvas.whole, plate), ((0, scan.hu["table"]),), only=canvas.labels == 0)


def _join(mm: NDArray[np.float32], field: Field) -> None:
    np.minimum(mm[field.box], field.mm, out=mm[field.box])


def _bulges(scan: Scan) -> list[tuple]:
    chest = 30 if scan.patient.female else 10
    shapes: list[tuple] = [
        ((770, 8, 0), (76, 96, 74), 0.1, None),
        ((716, -30, 0), (68, 57, 58), 0.2, None),
        ((668, -38, 0), (22, 40, 36), 0.25, None),
        ((722, -92, 0), (17, 9, 9), 0.0, None),
    ]
    for side in (1, -1):
        shapes += [
            ((547, 16, side * 138), (42, 44, 40), 0.35, None),
            ((563, 24, side * 82), (20, 34, 62), 0.35, None),
            ((20, 72, side * 68), (85, 36, 62), 0.9, None),
            ((445, -80, side * 70), (42, chest, 48), 0.8, None),
            ((497, 62, side * 94), (72, 27, 50), 0.3, None),
            ((722, 20, side * 78), (27, 14, 5), 0.0, None),
        ]
    return shapes


def _arms(scan: Scan) -> list[NDArray[np.float64]]:
    up = np.array([(545, 16, 155, 34), (610, 5, 178, 32), (720, -20, 186, 30)], float)
    down = np.array([(545, 16, 158, 36), (480, 22, 184, 33), (300, 25, 196, 29)], float)
    left = up if scan.arms_up else down
    return [left, left * [1, 1, -1, 1]]
