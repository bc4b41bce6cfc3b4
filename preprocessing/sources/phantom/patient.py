"""Who the phantom is and how it is scanned: every random choice but texture and noise, drawn from seed and index alone.

A `Patient` keeps size, build and individual shape over all visits; a `Scan` is one visit with its field of view, pose,
contrast phase, dose, file format and lesions. Drawing one costs well under a millisecond, so that a listing is cheap.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import AnatomyKind, RegionName
from preprocessing.geometry import Geometry, Triple
from preprocessing.sources.phantom.tissue import PHASES, Phase, tissue_hu

Resolution = Literal["tiny", "coarse", "fine"]
Orientation = str
LesionKind = Literal["lung_nodule", "liver_lesion", "mediastinal_node", "abdominal_node"]
CHEST_LESIONS: tuple[LesionKind, ...] = ("lung_nodule", "mediastinal_node")
ABDOMEN_LESIONS: tuple[LesionKind, ...] = ("liver_lesion", "abdominal_node")


@dataclass(frozen=True)
class View:
    """A field of view: body z from `low_mm` to `high_mm`, and the regions it is meant to hold."""

    name: str
    low_mm: float
    high_mm: float
    regions: tuple[RegionName, ...]
    slice_mm: tuple[float, ...]


WHOLE = View("whole", -75, 862, ("head_neck", "chest", "abdomen"), (4.0, 4.5, 5.0))
HEAD_CHEST = View("head_chest", 238, 862, ("head_neck", "chest"), (3.0, 4.0))
CHEST_ABDOMEN = View("chest_abdomen", -75, 625, ("chest", "abdomen"), (3.0, 4.0))
CHEST = View("chest", 238, 625, ("chest",), (2.0, 2.5, 3.0))
ABDOMEN = View("abdomen", -75, 385, ("abdomen",), (2.5, 3.0, 4.0))
HEAD_NECK = View("head_neck", 548, 862, ("head_neck",), (2.0, 2.5, 3.0))
VIEWS = (WHOLE, CHEST_ABDOMEN, WHOLE, HEAD_CHEST, ABDOMEN, WHOLE, HEAD_NECK, WHOLE, CHEST, CHEST_ABDOMEN)
FORMATS = ("nii.gz", "nii", "dicom", "nrrd", "mha")
ORIENTATIONS = ("LAS", "RAS", "LPI", "LPS", "PIR", "RAI")
MATRIX = {"tiny": (40, 56), "coarse": (128, 176), "fine": (288, 400)}
SLICE_FACTOR = {"tiny": 3.0, "coarse": 1.0, "fine": 0.4}


@dataclass(frozen=True)
class Lesion:
    """One lesion to come: where in its organ is decided from `seed` when the organ is there."""

    kind: LesionKind
    radius_mm: float
    contrast_hu: float
    seed: int


@dataclass(frozen=True)
class Patient:
    """What stays the same over a patient's visits. `scale` (z, y, x) is against the standard adult."""

    index: int
    female: bool
    scale: Triple
    fat_mm: float
    warp_seed: int
    anatomy: AnatomyKind


@dataclass(frozen=True)
class Scan:
    """One visit: what is seen (`view`, `centre_mm` in body mm, `rotation`), on which grid, how."""

    patient: Patient
    visit: int
    view: View
    geometry: Geometry
    rotation: NDArray[np.float64]
    centre_mm: Triple
    phase: Phase
    hu: dict[str, float]
    noise_hu: float
    arms_up: bool
    lesions: tuple[Lesion, ...]
    format: str
    orientation: Orientation
    seed: int

    @property
    def name(self) -> str:
        """The case's id: patient and visit."""
        return f"{patient_key(self.patient.index)}-{self.visit}"

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of this scan's own for one purpose, independent of every other."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, self.patient.index, self.visit, purpose)))


def patient_key(index: int) -> str:
    """The patient's key as listed."""
    return f"phantom-{index:04d}"


def visits(index: int) -> int:
    """How many scans a patient has: every eleventh comes twice."""
    return 2 if index % 11 == 7 else 1


def draw_patient(seed: int, index: int) -> Patient:
    """Patient `index` of a seed."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    female = bool(rng.random() < 0.5)
    tall = rng.normal(0.96 if female else 1.01, 0.035)
    return Patient(
        index=index,
        female=female,
        scale=(
            float(np.clip(tall, 0.88, 1.1)),
            float(np.clip(rng.normal(tall, 0.04), 0.88, 1.12)),
            float(np.clip(rng.normal(tall, 0.04), 0.88, 1.12)),
        ),
        fat_mm=float(np.clip(rng.lognormal(np.log(15), 0.45), 5, 38)),
        warp_seed=int(rng.integers(2**31)),
        anatomy="none" if index % 20 == 18 else "partial" if index % 20 in (14, 16) else "full",
    )


def draw_scan(seed: int, index: int, visit: int = 0, resolution: Resolution = "coarse") -> Scan:
    """Visit `visit` of patient `index`; formats, orientations and fields of view cycle so that all of them occur."""
    patient = draw_patient(seed, index)
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, visit)))
    view = VIEWS[index % len(VIEWS)]
    phase: Phase = PHASES[int(rng.choice(len(PHASES), p=(0.25, 0.2, 0.4, 0.15)))]
    number = index + 3 * visit + index // len(FORMATS)
    return Scan(
        patient=patient,
        visit=visit,
        view=view,
        geometry=_grid(patient, view, resolution, rng, oblique=index % 12 == 9),
        rotation=_rotation(*rng.normal(0, (2.5, 1.5, 1.2))),
        centre_mm=((view.low_mm + view.high_mm) / 2, float(rng.normal(12, 4)), float(rng.normal(0, 5))),
        phase=phase,
        hu=tissue_hu(phase, rng),
        noise_hu=float(rng.uniform(4, 6) if view is HEAD_NECK else rng.uniform(9, 14)),
        arms_up=view in (CHEST, ABDOMEN, CHEST_ABDOMEN),
        lesions=_lesions(view, rng),
        format=FORMATS[number % len(FORMATS)],
        orientation=ORIENTATIONS[number % len(ORIENTATIONS)],
        seed=seed,
    )


def _grid(patient: Patient, view: View, resolution: Resolution, rng: np.random.Generator, *, oblique: bool) -> Geometry:
    rows, columns = MATRIX[resolution]
    wide, deep = (300, 250) if view is HEAD_NECK else (2 * (172 + patient.fat_mm), 2 * (112 + patient.fat_mm))
    if view.high_mm > 600 and view is not HEAD_NECK:
        wide = max(wide, 412)
    pixel = max(wide * patient.scale[2] / columns, deep * patient.scale[1] / rows)
    pixel = float(np.ceil(pixel * rng.uniform(1.0, 1.06) * 50) / 50)
    slice_mm = float(rng.choice(view.slice_mm)) * SLICE_FACTOR[resolution]
    slices = int(np.ceil((view.high_mm - view.low_mm) * patient.scale[0] / slice_mm))
    turn = _rotation(float(rng.choice((-6.0, 5.0))), 0, 0) if oblique else np.eye(3)
    return Geometry(
        shape=(slices, rows, columns),
        spacing_mm=(slice_mm, pixel, pixel),
        origin_mm=(float(np.round(rng.uniform(-900, 300), 1)), -pixel * rows / 2, -pixel * columns / 2),
        direction=_rows(turn),
    )


def _rows(turn: NDArray[np.float64]) -> tuple[Triple, Triple, Triple]:
    first, second, third = ((float(a), float(b), float(c)) for a, b, c in turn)
    return first, second, third


def _rotation(roll: float, tilt: float, yaw: float) -> NDArray[np.float64]:
    a, b, c = np.radians((roll, tilt, yaw))
    about_z = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_x = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(c), 0, -np.sin(c)], [0, 1, 0], [np.sin(c), 0, np.cos(c)]])
    return about_z @ about_x @ about_y


def _lesions(view: View, rng: np.random.Generator) -> tuple[Lesion, ...]:
    kinds = (CHEST_LESIONS if "chest" in view.regions else ()) + (ABDOMEN_LESIONS if "abdomen" in view.regions else ())
    ill = rng.random() < 0.58
    if not kinds or not ill:
        return ()
    first = kinds[int(rng.integers(len(kinds)))]
    more = tuple(kind for kind in kinds if rng.random() < 0.35)
    return tuple(_lesion(kind, rng) for kind in (first, *more))


def _lesion(kind: LesionKind, rng: np.random.Generator) -> Lesion:
    low, high = {
        "lung_nodule": (8, 20),
        "liver_lesion": (9, 24),
        "mediastinal_node": (7, 13),
        "abdominal_node": (7, 14),
    }[kind]
    radius = low + (high - low) * rng.beta(1.6, 1.2)
    contrast = rng.uniform(-60, -25) if rng.random() < 0.8 else rng.uniform(30, 60)
    return Lesion(kind, float(radius), float(contrast), int(rng.integers(2**31)))
