"""The rule of every region: present when its anchor organs are, bounded by quantiles of their z.

The numbers are those of the project's class table: 1 % and 99 % of an organ's voxels stand for its ends, margins are in
mm, volumes in mL. A bound never leaves the volume.
"""

from collections.abc import Callable

from preprocessing.case import RegionName
from preprocessing.geometry import Geometry
from preprocessing.regions.class_extents import CERVICAL, LUNGS, ClassExtents

MIN_EXTENT_MM: dict[RegionName, float] = {"head_neck": 96, "chest": 128, "abdomen": 128}
LOW, MIDDLE, HIGH = 0.01, 0.50, 0.99
Bounds = tuple[float, float] | None


def head_neck_bounds(e: ClassExtents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of head and neck, None where it is absent."""
    brain = e.volume("brain") >= 200
    if not brain and sum(e.volume(name) >= 1 for name in CERVICAL) < 3:
        return None
    bottom, top = volume_ends(geometry)
    lower = _first(
        (e.quantile(LOW, "vertebrae_C7"), -10),
        (e.quantile(LOW, "vertebrae_T1"), 0),
        (e.quantile(HIGH, *LUNGS), 10),
        (e.quantile(LOW, "thyroid_gland"), -20),
        (bottom, 0),
    )
    crown = e.quantile(HIGH, "skull", "brain") if brain else None
    return max(lower, bottom), min(_first((crown, 15), (top, 0)), top)


def chest_bounds(e: ClassExtents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of the chest, None where it is absent."""
    upper_lobes = e.volume("lung_upper_lobe_left", "lung_upper_lobe_right")
    lower_lobes = e.volume("lung_lower_lobe_left", "lung_lower_lobe_right")
    if e.volume(*LUNGS) < 600 or not upper_lobes or not lower_lobes:
        return None
    bottom, top = volume_ends(geometry)
    upper = _first((e.quantile(HIGH, *LUNGS), 20), (e.quantile(HIGH, "clavicula_left", "clavicula_right"), 10))
    lower = _first((e.quantile(LOW, *LUNGS), -10), (e.quantile(MIDDLE, "vertebrae_T12"), 0))
    return max(lower, bottom), min(upper, top)


def abdomen_bounds(e: ClassExtents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of abdomen and pelvis, None where it is absent."""
    kidneys = min(e.volume("kidney_left"), e.volume("kidney_right")) >= 50
    if e.volume("liver") < 300 and not (kidneys and e.volume("spleen", "pancreas")):
        return None
    bottom, top = volume_ends(geometry)
    highest = [e.quantile(HIGH, name) for name in ("liver", "spleen", "stomach") if e.volume(name) >= 20]
    upper = max([z for z in highest if z is not None], default=top) + 10
    lower = _first(
        (_lowest(e, "hip_left", "hip_right"), -10),
        (_lowest(e, "urinary_bladder", "prostate", "sacrum"), -20),
        (bottom, 0),
    )
    return max(lower, bottom), min(upper, top)


RULES: dict[RegionName, Callable[[ClassExtents, Geometry], Bounds]] = {
    "head_neck": head_neck_bounds,
    "chest": chest_bounds,
    "abdomen": abdomen_bounds,
}


def volume_ends(geometry: Geometry) -> tuple[float, float]:
    """World z in mm of the centres of a volume's first and last slice."""
    bottom = geometry.origin_mm[0]
    return bottom, bottom + geometry.spacing_mm[0] * (geometry.shape[0] - 1)


def _lowest(e: ClassExtents, *names: str) -> float | None:
    return min((z for name in names if (z := e.quantile(LOW, name)) is not None), default=None)


def _first(*candidates: tuple[float | None, float]) -> float:
    return next(z + margin for z, margin in candidates if z is not None)
