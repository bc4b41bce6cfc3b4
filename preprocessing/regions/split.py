"""Which regions a volume holds, and from where to where along z.

With a full map the rule is anatomical (`region_rules`), and it verifies and trims what the source declares. Without one
a declared region has the whole z-range, and otherwise a region is what the labels there are or the image itself prove;
where nothing is certain there is no region and a finding says so.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from preprocessing.case import AnatomyKind, RegionName
from preprocessing.geometry import Geometry
from preprocessing.regions import REGIONS, RegionExtent
from preprocessing.regions.class_extents import ClassExtents, measure_extents
from preprocessing.regions.evidence import region_from_image
from preprocessing.regions.organ_order import check_order
from preprocessing.regions.rules import MIN_EXTENT_MM, RULES, Bounds, volume_ends

HEAD_OVERLAP_MM = 60.0
HEART_ML = 50.0
Split = tuple[tuple[RegionExtent, ...], tuple[str, ...]]
AllBounds = Mapping[RegionName, Bounds]


def split_regions(
    anatomy: NDArray[np.uint8],
    geometry: Geometry,
    image: NDArray[np.int16],
    declared: Sequence[RegionName],
    kind: AnatomyKind,
) -> Split:
    """The regions of a stored volume (level 0, axis-aligned LPS) with their level-0 z-ranges, and findings.

    Args:
        anatomy: uint8 ids 0-119, (z, y, x).
        geometry: of both arrays.
        image: int16 HU, the same shape.
        declared: regions that the source promises.
        kind: whether the map names every organ.

    Raises:
        CaseError: the labels prove that the body lies the wrong way round.
    """
    extents = measure_extents(anatomy, geometry)
    findings = check_order(extents)
    bounds = {name: rule(extents, geometry) for name, rule in RULES.items()}
    if kind == "full":
        regions, more = _of_full_map(bounds, extents, geometry, declared)
    elif declared:
        regions = tuple(RegionExtent(name=name, z_start=0, z_stop=geometry.shape[0]) for name in declared)
        more = _contradictions(bounds, geometry, declared)
    else:
        regions, more = _of_evidence(bounds, geometry, image)
    return regions, findings + more


def _of_full_map(bounds: AllBounds, extents: ClassExtents, geometry: Geometry, declared: Sequence[RegionName]) -> Split:
    """What the rule says of a full map; of a declared region no more than that, and of others nothing."""
    wanted = {name: bound for name, bound in bounds.items() if not declared or name in declared}
    regions, findings = _emit(wanted, geometry)
    missing = tuple(f"declared region {name} is not in the map" for name in declared if bounds[name] is None)
    if bounds["chest"] and extents.volume("heart") < HEART_ML:
        findings += (f"chest without a heart: {extents.volume('heart'):.0f} mL of it are labelled",)
    if not regions and not findings:
        findings = ("no region: the map of the organs shows none",)
    return regions, findings + missing + _contradictions(bounds, geometry, declared) + _region_order(bounds)


def _contradictions(bounds: AllBounds, geometry: Geometry, declared: Sequence[RegionName]) -> tuple[str, ...]:
    """Regions of full length that the labels show although the source declares others only."""
    shown, _ = _emit({name: bound for name, bound in bounds.items() if name not in declared}, geometry)
    return tuple(f"the labels also show {region.name}, which is not declared: left out" for region in shown if declared)


def _of_evidence(bounds: AllBounds, geometry: Geometry, image: NDArray[np.int16]) -> Split:
    """What a partial map proves, and for other regions what the image does."""
    spans, reason = region_from_image(image, geometry.spacing_mm[0])
    bottom, top = volume_ends(geometry)
    by_image = {name: (max(bottom + low, bottom), min(bottom + high, top)) for name, (low, high) in spans.items()}
    proven = {name: bounds[name] or by_image.get(name) for name in REGIONS}
    regions, findings = _emit(proven, geometry)
    if any(bounds[name] is None for name in spans):
        findings = (f"region by the image: {reason}", *findings)
    if not any(proven.values()):
        findings = (f"no region: {reason}", *findings)
    return regions, findings + _region_order(bounds)


def _emit(bounds: AllBounds, geometry: Geometry) -> Split:
    """Bounds in mm as ranges of slices; one that is too short is left out with a finding."""
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
    return tuple(regions), tuple(findings)


def _region_order(bounds: AllBounds) -> tuple[str, ...]:
    """Findings where regions do not lie above one another; chest and abdomen overlap, head and chest hardly do."""
    head, chest, abdomen = (bounds[name] for name in REGIONS)
    findings = []
    if head and chest and head[0] < chest[1] - HEAD_OVERLAP_MM:
        findings.append(f"region_order: head_neck begins {chest[1] - head[0]:.0f} mm below the top of the chest")
    if chest and abdomen and (chest[0] < abdomen[0] or chest[1] < abdomen[1]):
        findings.append("region_order: chest does not lie above abdomen")
    if head and abdomen and head[0] < abdomen[1]:
        findings.append("region_order: head_neck does not lie above abdomen")
    return tuple(findings)
