"""A made-up patient of blocks, stacked from pelvis to head, with every organ on its side; built without the package."""

import csv
from pathlib import Path

import numpy as np

from preprocessing.geometry import Geometry

MM = 4.0
BOTTOM = -500.0
SHAPE = (260, 60, 80)  # 1040 mm high
GEOMETRY = Geometry(SHAPE, (MM, MM, MM), (BOTTOM, -100.0, -150.0))
TABLE = Path(__file__).resolve().parents[2] / "preprocessing/classes.csv"
IDS = {row["name"]: int(row["id"]) for row in csv.DictReader(TABLE.open())}
FRONT, MIDDLE, BACK = 14, 26, 48
RIGHT, CENTRE, LEFT = 16, 40, 62  # LPS: x grows to the patient's left
ORGANS = {  # name: (from, to in mm above the first slice, half width in voxels, y, x)
    "skull": (880, 1000, 20, MIDDLE, CENTRE),
    "brain": (900, 990, 16, MIDDLE, CENTRE),
    **{f"vertebrae_C{n}": (860 - 20 * n, 878 - 20 * n, 6, BACK, CENTRE) for n in range(1, 8)},
    **{f"vertebrae_T{n}": (720 - 25 * n, 740 - 25 * n, 6, BACK, CENTRE) for n in range(1, 13)},
    **{f"vertebrae_L{n}": (420 - 30 * n, 445 - 30 * n, 6, BACK, CENTRE) for n in range(1, 6)},
    "thyroid_gland": (740, 780, 3, FRONT, CENTRE),
    "trachea": (600, 740, 3, MIDDLE, CENTRE),
    "clavicula_left": (690, 710, 6, FRONT, LEFT),
    "clavicula_right": (690, 710, 6, FRONT, RIGHT),
    "lung_upper_lobe_left": (580, 700, 12, MIDDLE, LEFT),
    "lung_lower_lobe_left": (450, 580, 12, MIDDLE, LEFT),
    "lung_upper_lobe_right": (580, 700, 12, MIDDLE, RIGHT),
    "lung_lower_lobe_right": (450, 580, 12, MIDDLE, RIGHT),
    "heart": (500, 580, 9, MIDDLE, CENTRE + 4),
    "liver": (330, 448, 14, MIDDLE, RIGHT),
    "stomach": (380, 440, 6, FRONT, LEFT - 6),
    "spleen": (380, 444, 8, BACK - 10, LEFT),
    "kidney_left": (300, 372, 7, BACK - 8, LEFT),
    "kidney_right": (280, 328, 8, BACK - 8, RIGHT),
    "urinary_bladder": (140, 200, 7, FRONT, CENTRE),
    "sacrum": (180, 260, 6, BACK, CENTRE),
    "hip_left": (104, 280, 8, MIDDLE, LEFT),
    "hip_right": (100, 280, 8, MIDDLE, RIGHT),
}
LUNGS = tuple(name for name in ORGANS if name.startswith("lung"))


def atlas(*, without: tuple[str, ...] = (), shift_mm: dict[str, float] | None = None) -> np.ndarray:
    """The patient's map, uint8 (z, y, x); `shift_mm` moves single organs up."""
    anatomy = np.full(SHAPE, 118, np.uint8)
    for name, (low, high, half, y, x) in ORGANS.items():
        if name in without:
            continue
        up = (shift_mm or {}).get(name, 0)
        z = slice(round((low + up) / MM), round((high + up) / MM))
        anatomy[z, max(0, y - half) : y + half, max(0, x - half) : x + half] = IDS[name]
    return anatomy


def end_mm(anatomy: np.ndarray, share: float, *names: str) -> float:
    """World z below which a share of the named organs' voxels lies, by sorting all of them."""
    z = np.flatnonzero(np.isin(anatomy, [IDS[name] for name in names]).any((1, 2)))
    counts = np.isin(anatomy[z], [IDS[name] for name in names]).sum((1, 2))
    return float(np.quantile(np.repeat(BOTTOM + MM * z, counts), share))
