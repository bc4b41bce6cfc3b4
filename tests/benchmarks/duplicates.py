"""Duplicates, measured: how many copies of a scan are found by what was done to them, and how many others are merged.

Copies are made of every real scan and a few phantoms before they are resampled, as another data set would hold them.
Pairs of different scans are all pairs of all scans, but for those that are known to be one. `clustering` is the time to
find the candidates among so many signatures, which are the real ones with noise of another scan's size.
"""

import itertools
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.lake import open_lake
from preprocessing.case import CaseError
from preprocessing.decoding.decode import read_volume
from preprocessing.duplicates.candidates import candidate_pairs
from preprocessing.duplicates.same_scan import is_same_scan
from preprocessing.duplicates.signature import signature
from preprocessing.geometry import Geometry
from preprocessing.orient import turn_towards
from preprocessing.pyramid import downsample2
from preprocessing.quality import audit
from preprocessing.resample import output_grid, resample, resample_onto
from preprocessing.sources.folder import FolderSource
from preprocessing.sources.phantom import PhantomSource
from preprocessing.volume import Volume

TITLE = "duplicates: share of copies found and of merged pairs that are one scan; seconds to find candidates"
Scan = tuple[NDArray[np.int16], Geometry]
COPIES = (
    *("saved again", "mirrored x", "mirrored z", "mirrored x z", "half of z", "60 mm of z", "cut in plane 10 %"),
    *("cut in plane 20 %", "padded", "1.5 mm slices", "3 mm slices", "5 mm slices", "spacing 1 1 1"),
    *("HU -1000..1000", "HU -160..240", "24 HU higher", "half of z, mirrored, 5 mm"),
)
TRUE_PAIRS = {
    ("abdomen-3mm", "abdomen-3mm-crop"),
    ("chest-4mm__ct-64", "chest-4mm__dicom"),
    ("head-phantom-thick-thin__1mm", "head-phantom-thick-thin__5mm"),
    ("sarcoma-dicom-rtstruct__image", "sarcoma__STS_032"),
}


def run(data: Path, quick: bool = False) -> list[dict[str, Any]]:
    """Recall by copy, precision and recall over all pairs of scans, and the time of finding candidates."""
    scans = real_scans(data, ("chest-4mm", "spine") if quick else ("",)) | phantoms(2 if quick else 6)
    rows = measure(scans, TRUE_PAIRS, COPIES[:2] if quick else COPIES)
    return rows + [_clustering(scans, count) for count in ((100,) if quick else (1000, 10_000))]


def main() -> None:
    """Print the table of the folder that MEDDIFF_TEST_DATA names."""
    import os

    for row in run(Path(os.environ["MEDDIFF_TEST_DATA"])):
        print(row)


def real_scans(data: Path, names: Collection[str]) -> dict[str, Scan]:
    """The CTs of the folder whose id begins with one of these names, by id, in the scanner's grid."""
    cases = [case for case in FolderSource(path=str(data)).cases() if case.id.startswith(tuple(names))]
    scans = {}
    for case in cases:
        try:
            volume = audit(read_volume(case.replace(labels=(), lesion=())))
        except CaseError:
            continue
        scans[case.id] = volume.image, volume.geometry
    return scans


def phantoms(count: int) -> dict[str, Scan]:
    """The first patients of two seeds."""
    scans = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder)
        for seed in (0, 1):
            source = PhantomSource(patients=count // 2, seed=seed, dose_pairs=False)
            for case in source.cases():
                volume = audit(read_volume(source.fetch(case, lake).replace(labels=(), lesion=(), companions=())))
                scans[f"{case.id} of seed {seed}"] = volume.image, volume.geometry
    return scans


def copies(image: NDArray[np.int16], geometry: Geometry) -> Iterator[tuple[str, Scan]]:
    """Every copy of a scan, by its name in `COPIES`."""
    turn = turn_towards(geometry)
    image, spacing = turn.array(image), turn.geometry(geometry).spacing_mm
    depth, height, width = image.shape
    slices = {mm: _sliced((image, Geometry(image.shape, spacing)), mm) for mm in (1.5, 3.0, 5.0)}
    start = int(0.23 * depth)
    thick = slices[5.0][0]
    made = {
        "saved again": (image, spacing),
        "mirrored x": (image[:, :, ::-1], spacing),
        "mirrored z": (image[::-1], spacing),
        "mirrored x z": (image[::-1, :, ::-1], spacing),
        "half of z": (image[start : start + -(-depth // 2)], spacing),
        "60 mm of z": (image[start : start + -int(-60 // spacing[0])], spacing),
        "cut in plane 10 %": (image[:, height // 10 : -(height // 10), width // 10 : -(width // 10)], spacing),
        "cut in plane 20 %": (image[:, height // 5 : -(height // 5), width // 5 : -(width // 5)], spacing),
        "padded": (_padded(image), spacing),
        "spacing 1 1 1": (image, (1.0, 1.0, 1.0)),
        "HU -1000..1000": (np.clip(image, -1000, 1000), spacing),
        "HU -160..240": (np.clip(image, -160, 240), spacing),
        "24 HU higher": (image + np.int16(24), spacing),
        "half of z, mirrored, 5 mm": (thick[len(thick) // 4 : -(len(thick) // 4), :, ::-1], (5.0, *spacing[1:])),
    }
    made |= {f"{mm:g} mm slices": (copy, grid.spacing_mm) for mm, (copy, grid) in slices.items()}
    for name in COPIES:
        array, at = made[name]
        yield name, (np.ascontiguousarray(array), Geometry(array.shape, at))


def _padded(image: NDArray[np.int16]) -> NDArray[np.int16]:
    _, height, width = image.shape
    return np.pad(image, ((0, 0), (height // 5, height // 9), (width // 7, width // 4)), constant_values=-1024)


def _sliced(scan: Scan, thickness_mm: float) -> Scan:
    image, geometry = scan
    grid = output_grid(geometry, (thickness_mm, *geometry.spacing_mm[1:]))
    return resample_onto(image, geometry, grid), grid


def coarse(image: NDArray[np.int16], geometry: Geometry) -> NDArray[np.int16]:
    """The pyramid level that signatures are taken from, of a scan stored at 2 mm."""
    return downsample2(resample(Volume(image=image, geometry=geometry), 2.0).image)


def measure(
    scans: Mapping[str, Scan], same: Collection[tuple[str, str]], made: Collection[str]
) -> list[dict[str, Any]]:
    """Recall by copy (`made` of COPIES), and precision and recall over all pairs of scans; `same` are truly one."""
    stored = {name: coarse(*scan) for name, scan in scans.items()}
    found: dict[str, list[bool]] = {name: [] for name in made}
    for name, scan in scans.items():
        for copy, changed in copies(*scan):
            if copy in found:
                found[copy].append(bool(_twins({"": stored[name], copy: coarse(*changed)})))
    rows = [_row(copy, len(some), recall=sum(some) / len(some)) for copy, some in found.items()]
    twins = _twins(stored)
    true = twins & {pair for pair in same if set(pair) <= stored.keys()}
    wanted = [pair for pair in same if set(pair) <= stored.keys()]
    pairs = len(stored) * (len(stored) - 1) // 2
    precision = len(true) / len(twins) if twins else 1.0
    return [*rows, _row("pairs", pairs, recall=len(true) / max(1, len(wanted)), precision=precision)]


def _twins(stored: Mapping[str, NDArray[np.int16]]) -> set[tuple[str, str]]:
    names = sorted(stored)
    pairs = candidate_pairs([signature(stored[name]) for name in names], [True] * len(names))
    return {
        (names[i], names[j])
        for (i, j), arrangements in pairs.items()
        if any(is_same_scan(stored[names[i]], stored[names[j]], one) for one in arrangements)
    }


def _clustering(scans: Mapping[str, Scan], count: int) -> dict[str, Any]:
    """The time to find candidates among signatures of noisy variants of the scans, each cut and turned in its way."""
    volumes = [coarse(*scan) for scan in scans.values()]
    texts = []
    for n in range(min(count, 200)):
        volume = volumes[n % len(volumes)]
        rng = np.random.default_rng(n)
        noise = np.kron(rng.normal(0, 200, [-(-k // 2) for k in volume.shape]), np.ones((2, 2, 2)))
        texts.append(signature((volume + noise[tuple(slice(k) for k in volume.shape)]).astype(np.int16)))
    signatures = [text for text, _ in zip(itertools.cycle(texts), range(count), strict=False)]
    start = time.perf_counter()
    candidate_pairs(signatures, [n < count // 10 for n in range(count)])
    return _row(f"a tenth new of {count} signatures", count, seconds=time.perf_counter() - start)


def _row(copy: str, pairs: int, **values: float) -> dict[str, Any]:
    return {"copy": copy, "pairs": pairs} | {name: values.get(name) for name in ("recall", "precision", "seconds")}


if __name__ == "__main__":
    main()
