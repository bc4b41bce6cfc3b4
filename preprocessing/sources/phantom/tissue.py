"""Hounsfield values of the phantom's tissues, different in every patient and contrast phase."""

from typing import Literal

import numpy as np

Phase = Literal["native", "arterial", "portal", "late"]
PHASES: tuple[Phase, ...] = ("native", "arterial", "portal", "late")

_SAME: dict[str, tuple[float, float]] = {
    "air": (-1000, 0),
    "fat": (-104, 7),
    "skin": (15, 15),
    "muscle": (57, 6),
    "cortical": (850, 130),
    "thin_bone": (520, 80),
    "trabecular": (190, 55),
    "skull": (1150, 150),
    "marrow": (20, 40),
    "cartilage": (105, 20),
    "disc": (82, 10),
    "tooth": (1900, 200),
    "lung": (-850, 28),
    "csf": (9, 3),
    "cord": (36, 4),
    "brain": (34, 3),
    "eye": (12, 3),
    "lens": (75, 10),
    "gland": (45, 8),
    "bile": (10, 5),
    "wall": (48, 8),
    "chyme": (18, 14),
    "stool": (-10, 40),
    "mucus": (30, 8),
    "nodule": (28, 14),
    "node": (48, 12),
    "table": (-140, 40),
}
_PHASED: dict[str, tuple[float, float, float, float, float]] = {
    "artery": (42, 310, 150, 115, 0.16),
    "vein": (40, 70, 135, 110, 0.14),
    "portal": (41, 95, 175, 125, 0.12),
    "heart_blood": (41, 260, 145, 115, 0.14),
    "lung_vessel": (40, 230, 140, 110, 0.15),
    "myocardium": (46, 100, 105, 85, 0.10),
    "liver": (58, 72, 108, 92, 0.10),
    "spleen": (47, 120, 118, 95, 0.08),
    "kidney_cortex": (34, 175, 180, 150, 0.08),
    "kidney_medulla": (30, 75, 150, 155, 0.10),
    "kidney_pelvis": (8, 8, 20, 260, 0.30),
    "pancreas": (40, 95, 85, 70, 0.10),
    "thyroid": (105, 175, 150, 130, 0.10),
    "urine": (6, 6, 8, 90, 0.40),
}


def tissue_hu(phase: Phase, rng: np.random.Generator) -> dict[str, float]:
    """One patient's Hounsfield value of every tissue in a contrast phase; typical adult values with their spread."""
    column = PHASES.index(phase)
    plain = {name: mean + spread * _spread(rng) for name, (mean, spread) in _SAME.items()}
    phased = {name: row[column] * (1 + row[4] * _spread(rng)) for name, row in _PHASED.items()}
    return plain | phased


def _spread(rng: np.random.Generator) -> float:
    return float(np.clip(rng.standard_normal(), -2, 2))
