"""Which regions a volume holds, and from where to where along z.

With a full map the rule is anatomical: a region is present when its anchor organs are, and its bounds are quantiles of
their z. Without one the whole z-range gets the declared region, or what the image itself proves (a pair of lungs, a
skull); where nothing is certain there is no region and a finding says so. Findings are sentences, never exceptions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.anatomy import NUM_IDS, class_ids
from preprocessing.case import AnatomyKind, RegionName
from preprocessing.geometry import Geometry
from preprocessing.region_evidence import region_from_image
from preprocessing.regions import RegionExtent

MIN_EXTENT_MM: dict[RegionName, float] = {"head_neck": 96, "chest": 128, "abdomen": 128}
LOW, MIDDLE, HIGH = 0.01, 0.50, 0.99
COARSE_MM = 4.0
UNSORTED_VERTEBRAE = 2


@dataclass(frozen=True)
class Extents:
    """Volume in mL and z of the voxels of every class, from counts per slice (slices × classes) on a coarse grid."""

    counts: NDArray[np.int64]
    z_mm: NDArray[np.float64]
    voxel_ml: float

    def volume(self, *names: str) -> float:
        """mL of the named classes together."""
        return float(self.counts[:, _ids(names)].sum()) * self.voxel_ml

    def z(self, quantile: float, *names: str) -> float | None:
        """World z in mm below which this share of the named classes' voxels lies; None where there are none."""
        column = self.counts[:, _ids(names)].sum(1)
        if not column.any():
            return None
        order = np.argsort(self.z_mm, kind="stable")
        share = np.cumsum(column[order]) / column.sum()
        return float(self.z_mm[order][np.searchsorted(share, quantile)])


def split_regions(
    anatomy: NDArray[np.uint8],
    geometry: Geometry,
    image: NDArray[np.int16],
    declared: Sequence[RegionName],
    kind: AnatomyKind,
) -> tuple[tuple[RegionExtent, ...], tuple[str, ...]]:
    """The regions of a stored volume (level 0, axis-aligned LPS) with their level-0 z-ranges, and findings.

    Args:
        anatomy: uint8 ids 0-119, (z, y, x).
        geometry: of both arrays.
        image: int16 HU, the same shape.
        declared: regions that the source promises.
        kind: whether the map names every organ.
    """
    if declared and kind != "full":
        return tuple(RegionExtent(name=name, z_start=0, z_stop=geometry.shape[0]) for name in declared), ()
    extents = measure_extents(anatomy, geometry)
    bounds = {name: rule(extents, geometry) for name, rule in RULES.items()}
    if kind == "full" or any(bounds.values()):
        regions, findings = _emit(bounds, geometry)
        return regions, findings + _sanity(extents, bounds) + _compare(regions, declared)
    spans, reason = region_from_image(image, geometry.spacing_mm[0])
    bottom, top = _ends(geometry)
    proven: dict[RegionName, Bounds] = {
        name: (max(bottom + low, bottom), min(bottom + high, top)) for name, (low, high) in spans.items()
    }
    regions, findings = _emit(proven, geometry)
    said = f"region by the image: {reason}" if spans else f"no region: {reason}"
    return regions, (said, *(finding for finding in findings if not finding.startswith("no region")))


def measure_extents(anatomy: NDArray[np.uint8], geometry: Geometry) -> Extents:
    """Counts per class and slice on a grid of about 4 mm, keeping the largest pieces of each anchor class."""
    step = max(1, round(COARSE_MM / geometry.spacing_mm[0]))
    coarse = np.ascontiguousarray(anatomy[step // 2 :: step, step // 2 :: step, step // 2 :: step])
    if not coarse.size:
        coarse, step = anatomy, 1
    slices = np.arange(len(coarse))
    flat = coarse.reshape(len(coarse), -1) + NUM_IDS * slices[:, None]
    counts = np.bincount(flat.ravel(), minlength=NUM_IDS * len(coarse)).reshape(len(coarse), NUM_IDS)
    for id_, box in enumerate(ndimage.find_objects(coarse, max_label=NUM_IDS - 1), 1):
        if box is not None and id_ in _anchors():
            counts[:, id_] = 0
            counts[box[0], id_] = _largest_piece(coarse[box] == id_)
    z = geometry.origin_mm[0] + geometry.spacing_mm[0] * (slices * step + step // 2)
    return Extents(counts, z, float(np.prod(geometry.spacing_mm)) * step**3 / 1000)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count > 1:
        mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return mask.sum((1, 2))


LUNGS = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
CERVICAL = tuple(f"vertebrae_C{n}" for n in range(1, 8))
THORACIC = tuple(f"vertebrae_T{n}" for n in range(1, 13))
SPINE = (*CERVICAL, *THORACIC, *(f"vertebrae_L{n}" for n in range(1, 6)))
Bounds = tuple[float, float] | None


@cache
def _anchors() -> frozenset[int]:
    names = (*LUNGS, *SPINE, "brain", "skull", "liver", "spleen", "stomach", "hip_left", "hip_right")
    return frozenset(class_ids()[name] for name in names)


def _ids(names: Iterable[str]) -> list[int]:
    return [class_ids()[name] for name in names]


def _ends(geometry: Geometry) -> tuple[float, float]:
    bottom = geometry.origin_mm[0]
    return bottom, bottom + geometry.spacing_mm[0] * (geometry.shape[0] - 1)


def head_neck_bounds(e: Extents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of head and neck, None where it is absent."""
    if e.volume("brain") < 200 and sum(e.volume(name) >= 1 for name in CERVICAL) < 3:
        return None
    bottom, top = _ends(geometry)
    crown = e.z(HIGH, "skull", "brain") if e.volume("brain") >= 200 else None
    lower = _first(
        (e.z(LOW, "vertebrae_C7"), -10),
        (e.z(LOW, "vertebrae_T1"), 0),
        (e.z(HIGH, *LUNGS), 10),
        (e.z(LOW, "thyroid_gland"), -20),
        (bottom, 0),
    )
    return max(lower, bottom), min(top, _first((crown, 15), (top, 0)))


def chest_bounds(e: Extents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of the chest, None where it is absent."""
    upper_lobes = e.volume("lung_upper_lobe_left", "lung_upper_lobe_right")
    lower_lobes = e.volume("lung_lower_lobe_left", "lung_lower_lobe_right")
    if e.volume(*LUNGS) < 600 or not upper_lobes or not lower_lobes:
        return None
    bottom, top = _ends(geometry)
    upper = _first((e.z(HIGH, *LUNGS), 20), (e.z(HIGH, "clavicula_left", "clavicula_right"), 10))
    lower = _first((e.z(LOW, *LUNGS), -10), (e.z(MIDDLE, "vertebrae_T12"), 0))
    return max(lower, bottom), min(upper, top)


def abdomen_bounds(e: Extents, geometry: Geometry) -> Bounds:
    """(lower, upper) world z in mm of abdomen and pelvis, None where it is absent."""
    kidneys = min(e.volume("kidney_left"), e.volume("kidney_right")) >= 50
    if e.volume("liver") < 300 and not (kidneys and e.volume("spleen", "pancreas") > 0):
        return None
    bottom, top = _ends(geometry)
    tops = [e.z(HIGH, name) for name in ("liver", "spleen", "stomach") if e.volume(name) >= 20]
    upper = max([z for z in tops if z is not None], default=top) + 10
    lower = _first(
        (e.z(LOW, "hip_left", "hip_right"), -10),
        (e.z(LOW, "urinary_bladder"), -20),
        (e.z(LOW, "prostate"), -20),
        (e.z(LOW, "sacrum"), -20),
        (bottom, 0),
    )
    return max(lower, bottom), min(upper, top)


RULES: dict[RegionName, Callable[[Extents, Geometry], Bounds]] = {
    "head_neck": head_neck_bounds,
    "chest": chest_bounds,
    "abdomen": abdomen_bounds,
}


def _first(*candidates: tuple[float | None, float]) -> float:
    return next(z + margin for z, margin in candidates if z is not None)


def _emit(bounds: dict[RegionName, Bounds], geometry: Geometry) -> tuple[tuple[RegionExtent, ...], tuple[str, ...]]:
    regions, findings = [], []
    for name, bound in bounds.items():
        if bound is None:
            continue
        start, stop = (round((z - geometry.origin_mm[0]) / geometry.spacing_mm[0]) for z in bound)
        start, stop = max(0, start), min(geometry.shape[0], stop + 1)
        extent = (stop - start) * geometry.spacing_mm[0]
        if extent < MIN_EXTENT_MM[name]:
            findings.append(f"{name} spans {max(0.0, extent):.0f} mm, less than {MIN_EXTENT_MM[name]:.0f} mm: left out")
        else:
            regions.append(RegionExtent(name=name, z_start=start, z_stop=stop))
    if not regions and not findings:
        findings.append("no region: the map of the organs shows none")
    return tuple(regions), tuple(findings)


def _sanity(e: Extents, bounds: Mapping[RegionName, Bounds]) -> tuple[str, ...]:
    findings = []
    centres = [z for z in (e.z(MIDDLE, name) for name in SPINE if e.volume(name) >= 1) if z is not None]
    rising = sum(below > above for above, below in pairwise(centres))
    if rising > UNSORTED_VERTEBRAE:
        findings.append(f"vertebra_order: {rising} of {len(centres)} vertebrae lie above the one before; upside down?")
    present = [(name, b) for name, b in bounds.items() if b is not None]
    for (higher, above), (lower, below) in pairwise(present):
        if (above[0] + above[1]) / 2 < (below[0] + below[1]) / 2:
            findings.append(f"region_order: {higher} lies below {lower}; upside down?")
    return tuple(findings)


def _compare(regions: tuple[RegionExtent, ...], declared: Sequence[RegionName]) -> tuple[str, ...]:
    found = {region.name for region in regions}
    return tuple(f"declared region {name} is not in the map" for name in declared if name not in found)
