"""The scans that `duplicates` looks among: all real CTs, phantoms, and phantoms that are alike but no copies."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.duplicates_copies import Scan
from preprocessing.case import CaseError
from preprocessing.decoding.decode import read_image
from preprocessing.geometry import Geometry
from preprocessing.pyramid import downsample2
from preprocessing.quality import audit
from preprocessing.resample import output_grid, resample, resample_onto
from preprocessing.sources.folder import FolderSource
from preprocessing.sources.phantom.body import paint_patient
from preprocessing.sources.phantom.dose import projection_noise
from preprocessing.sources.phantom.patient import draw_scan
from preprocessing.sources.phantom.texture import add_texture
from preprocessing.sources.phantom.write import stored_hu
from preprocessing.volume import Volume

FINE_MM = 0.9
PEOPLE = (1, 3, 4, 6, 7)
ONE_SCAN = (
    ("abdomen-3mm", "abdomen-3mm-crop"),
    ("chest-4mm__ct-64", "chest-4mm__dicom"),
    ("head-phantom-thick-thin__1mm", "head-phantom-thick-thin__5mm"),
    ("sarcoma-dicom-rtstruct__image", "sarcoma__STS_032"),
)
SCANNERS = ("head-neck", "sarcoma", "phantom")


def real_scans(data: Path, names: Collection[str] = ("",)) -> dict[str, Scan]:
    """The CTs of the folder whose id begins with one of these names, by id, in the scanner's grid."""
    scans = {}
    for case in FolderSource(path=str(data)).cases():
        if case.id.startswith(tuple(names)):
            try:
                volume = audit(read_image(case))
            except CaseError:
                continue
            scans[case.id] = _halved_in_plane((volume.image, volume.geometry))
    return scans


def _halved_in_plane(scan: Scan) -> Scan:
    """Scans finer than FINE_MM in plane at twice the pixel size, to save time."""
    image, geometry = scan
    z, y, x = geometry.spacing_mm
    if min(y, x) > FINE_MM:
        return scan
    grid = output_grid(geometry, (z, 2 * y, 2 * x))
    return resample_onto(image, geometry, grid), grid


def phantoms(people: Collection[int] = PEOPLE) -> dict[str, Scan]:
    """People of the phantom, each with a second visit or another person who was scanned in the same way; the first is
    also scanned again without moving."""
    scans = {}
    for n, index in enumerate(people):
        scans[f"phantom {index}"] = phantom(0, index, 0)
        scans |= {f"phantom {index} again": phantom(0, index, 1)} if n % 2 else {}
        scans |= {} if n % 2 else {f"phantom {index} of seed 1": phantom(1, index, 0)}
        scans |= {} if n else {f"phantom {index} unmoved": phantom(0, index, 0, texture=1)}
    return scans


def phantom(seed: int, index: int, visit: int, texture: int = 0) -> Scan:
    """One visit of a person of a seed; another `texture` leaves the body as it is."""
    scan = draw_scan(seed, index, visit)
    canvas = paint_patient(scan)
    scan = replace(scan, seed=seed + texture)
    clean = add_texture(canvas, scan)
    noise = projection_noise(clean, scan.geometry.spacing_mm[1], scan.noise_hu, scan.rng(41))
    return stored_hu(clean + noise), scan.geometry


def coarse(image: NDArray[np.int16], geometry: Geometry) -> NDArray[np.int16]:
    """The pyramid level that signatures are taken from, of a scan stored at 2 mm."""
    return downsample2(resample(Volume(image=image, geometry=geometry), 2.0).image)


def same_scan(one: str, other: str) -> bool | None:
    """Whether two of these scans are one; None of two visits of one person, who share a split in any case."""
    if _person(one) == _person(other) != "":
        return True if one == other else None
    return one == other or tuple(sorted((one, other))) in ONE_SCAN


def relation(one: str, other: str) -> str:
    """In what way two scans that are not one are alike."""
    if same_scan(one, other) is None:
        unmoved = "unmoved" in one + other and "again" not in one + other
        return "one body unmoved, other texture and noise" if unmoved else "two visits"
    for name in SCANNERS:
        if one.startswith(name) and other.startswith(name):
            return f"one scanner: {name}"
    return "unrelated"


def _person(name: str) -> str:
    """What the names of one person's scans have in common, where somebody has several."""
    if name.startswith("lung-two-visits"):
        return "lung-two-visits"
    return name if "seed" in name else " ".join(name.split()[:2]) if name.startswith("phantom") else ""


def half(name: str) -> str:
    """Which half of the scans a scan is in, `a` or `b`; scans of one person are in one."""
    first = next((pair[0] for pair in ONE_SCAN if name in pair), name)
    return "ab"[hashlib.sha256((_person(name) or first).encode()).digest()[0] % 2]
