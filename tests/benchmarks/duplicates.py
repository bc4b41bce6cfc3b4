"""Duplicates, measured: how many copies of a scan are found by what was done to them, and how many others are merged.

Copies are made of every second real scan before it is resampled, as another data set would hold them, and sought among
all real scans and phantoms of two seeds; the last of these rows compares the scans themselves. The seconds are those of
finding candidates among many made-up signatures, whose neighbourhoods are mixed from real ones.
"""

import base64
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.lake import open_lake
from preprocessing.case import CaseError
from preprocessing.decoding.decode import read_image
from preprocessing.duplicates.candidates import candidate_pairs
from preprocessing.duplicates.same_scan import is_same_scan
from preprocessing.duplicates.signature import POINTS, RECORD, SAMPLES, signature
from preprocessing.geometry import Geometry
from preprocessing.orient import turn_towards
from preprocessing.pyramid import downsample2
from preprocessing.quality import audit
from preprocessing.resample import output_grid, resample, resample_onto
from preprocessing.sources.folder import FolderSource
from preprocessing.sources.phantom import PhantomSource
from preprocessing.volume import Volume

TITLE = "duplicates: share of copies found and of merged pairs that are one scan; seconds to find candidates"
FINE_MM = 0.9
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
    """Recall and precision by copy and over all pairs of scans, and the time of finding candidates."""
    real = real_scans(data, ("chest-4mm", "spine") if quick else ("",))
    stored = stored_volumes(real | phantoms(2 if quick else 10))
    every_second = {name: real[name] for name in sorted(real)[::2]}
    rows = measure(stored, stored_copies(every_second, COPIES[:2] if quick else COPIES), TRUE_PAIRS)
    texts = [signature(stored[name]) for name in real]
    return rows + [_seconds(texts, *sizes) for sizes in (((100, 10),) if quick else ((10_000, 100), (10_000, 10_000)))]


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


def phantoms(count: int) -> dict[str, Scan]:
    """The first patients of two seeds."""
    scans = {}
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder)
        for seed in (0, 1):
            source = PhantomSource(patients=count // 2, seed=seed, dose_pairs=False)
            for case in source.cases():
                volume = audit(read_image(source.fetch(case, lake, Path(folder))))
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


def stored_volumes(scans: Mapping[str, Scan]) -> dict[str, NDArray[np.int16]]:
    """The level of every scan that its signature is taken from."""
    return {name: coarse(*scan) for name, scan in scans.items()}


def stored_copies(scans: Mapping[str, Scan], made: Collection[str]) -> dict[tuple[str, str], NDArray[np.int16]]:
    """The same of every copy, by the scan's name and the copy's, one of `made`."""
    made_of = {name: copies(*scan) for name, scan in scans.items()}
    return {(name, copy): coarse(*scan) for name, some in made_of.items() for copy, scan in some if copy in made}


def measure(
    stored: Mapping[str, NDArray[np.int16]],
    copied: Mapping[tuple[str, str], NDArray[np.int16]],
    same: Collection[tuple[str, str]],
) -> list[dict[str, Any]]:
    """By copy, and over all pairs of stored scans: what is found of what is truly one scan, and what of the found is.

    `same` are the pairs of stored scans that are one; a copy is found if the scan that it was made from is.
    """
    one = {pair for a, b in same for pair in ((a, b), (b, a))} | {(name, name) for name in stored}
    merged: dict[str, list[tuple[str, str]]] = {copy: [] for copy in ("", *(copy for _, copy in copied))}
    for copy, pair in _twins(stored, copied):
        merged[copy].append(pair)
    originals = merged.pop("")
    rows = []
    for copy, pairs in merged.items():
        found = sum(a == b for a, b in pairs)
        rows.append(_row(copy, sum(copy == other for _, other in copied), found, len(pairs), len(set(pairs) & one)))
    wanted = sum(set(pair) <= stored.keys() for pair in same)
    true = len(set(originals) & one)
    number = len(stored) * (len(stored) - 1) // 2
    return [*rows, _row(f"all {number} pairs", wanted, true, len(originals), true)]


def _twins(
    stored: Mapping[str, NDArray[np.int16]], copied: Mapping[tuple[str, str], NDArray[np.int16]]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of every stored scan and of every copy the stored scans that it is taken for: the copy ("" for none) and both."""
    what = [*((name, "") for name in stored), *copied]
    volumes = [*stored.values(), *copied.values()]
    for (i, j), arrangements in candidate_pairs([*map(signature, volumes)], [True] * len(volumes)).items():
        if i < len(stored) and any(is_same_scan(volumes[i], volumes[j], one) for one in arrangements):
            yield what[j][1], (what[j][0], what[i][0])


def _row(copy: str, wanted: int, found: int, merged: int, true: int) -> dict[str, Any]:
    counts = {"copy": copy, "wanted": wanted, "found": found, "recall": found / max(1, wanted)}
    return counts | {"merged": merged, "precision": true / merged if merged else 1.0, "seconds": None}


def _seconds(texts: list[str], count: int, new: int) -> dict[str, Any]:
    """The time to find the candidates of `new` among `count` made-up signatures; none of them are one scan."""
    signatures = made_up_signatures(texts, count)
    start = time.perf_counter()
    found = candidate_pairs(signatures, [n < new for n in range(count)])
    seconds = time.perf_counter() - start
    row = dict.fromkeys(("copy", "wanted", "found", "recall", "merged", "precision"))
    return row | {"copy": f"{new} new of {count} ({len(found)} candidates)", "seconds": seconds}


def made_up_signatures(texts: list[str], count: int) -> list[str]:
    """Signatures of nothing: each neighbourhood is a mixture of two real ones, at the place of a third."""
    rng = np.random.default_rng(0)
    pools: tuple[list[Any], list[Any]] = ([], [])
    for data in map(base64.b64decode, texts):
        records = np.frombuffer(data, RECORD, offset=1)
        pools[0].append(records[: data[0]])
        pools[1].append(records[data[0] :])
    mixed = [_mixed(np.concatenate(pool), (count, size), rng) for pool, size in zip(pools, POINTS, strict=True)]
    own = len(mixed[0][0]).to_bytes(1, "big")
    return [base64.b64encode(own + a.tobytes() + b.tobytes()).decode() for a, b in zip(*mixed, strict=True)]


def _mixed(pool: NDArray[Any], shape: tuple[int, int], rng: np.random.Generator) -> NDArray[Any]:
    records = pool[rng.integers(0, len(pool), shape)]
    for axis in "zyx":
        records[axis] = pool[axis][rng.integers(0, len(pool), shape)]
    levels = np.stack([pool["levels"] >> 4, pool["levels"] & 15], axis=-1).reshape(-1, SAMPLES) - 8.0
    for row in records:
        angle = rng.uniform(0, np.pi / 2, (len(row), 1))
        one, other = (levels[rng.integers(0, len(pool), len(row))] for _ in range(2))
        mixture = np.cos(angle) * one + np.sin(angle) * other
        whole = np.clip(np.rint(mixture) + 8, 0, 15).astype(np.uint8)
        row["levels"] = (whole[:, ::2] << 4) | whole[:, 1::2]
    return records


if __name__ == "__main__":
    main()
