"""Random training samples of one real CT: ours against MONAI's PersistentDataset and nnU-Net's blosc2 storage.

A sample is a native patch: float32 image on [-1, 1] and its labels. All sides hold the same voxels, take turns on one
machine with as many threads each, and give equal arrays. Cold = the kernel is told to forget the files before every
sample. From a bucket ours reads ranges; the others have no way but to fetch the file.
"""

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import blosc2
import boto3
import numpy as np
import torch
from monai.data import PersistentDataset
from monai.transforms import Compose, RandSpatialCropd, Transform
from numpy.typing import NDArray

from benchmarks.counting_s3 import BUCKET, REGION, counting_server
from infra.lake import Lake, open_lake
from preprocessing.convert import convert_case
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS
from preprocessing.sources.folder import FolderSource
from preprocessing.store import StoredCase, open_case
from training.config import TrainConfig
from training.crops import LEVELS
from training.data import CropSampler, RegionVolume

Sample = tuple[NDArray, NDArray]
Draw = Callable[[np.random.Generator], Sample]
Row = dict
TARGET = {"MONAI": 15.0, "blosc2": 1.2}


@dataclass(frozen=True)
class Side:
    """One way to draw samples, and the files it draws from."""

    draw: Draw
    files: tuple[Path, ...]


def loader_rows(data: Path, scratch: Path, recipe: Recipe, name: str, patch: int, samples: int) -> list[Row]:
    """Samples a second by side, cache and threads; then requests and MB a sample from a bucket."""
    key, sides = _sides(data / name, scratch, recipe, patch)
    rows = []
    for threads in (1, 2):
        for cold in (False, True):
            times = _times(sides, threads, cold, samples)
            rows += [
                _row(f"loader, disk, {'cold' if cold else 'warm'}, {threads} threads", side, ms, times["ours"])
                for side, ms in times.items()
            ]
    return rows + _bucket_rows(scratch, key, sides, patch, max(2, samples // 4))


def _row(what: str, side: str, ms: float, ours: float, note: str = "") -> Row:
    if not note and side in TARGET:
        note = f"target x{TARGET[side]:g}"
    return {"what": what, "side": side, "ms": ms, "per_s": 1000 / ms, "over_ours": ms / ours, "MB": None, "note": note}


def _sides(folder: Path, scratch: Path, recipe: Recipe, patch: int) -> tuple[str, dict[str, Side]]:
    source = FolderSource(path=str(folder))
    lake = open_lake(str(scratch / "lake"))
    sealed = convert_case(next(case for case in source.cases() if not case.problem), source, recipe, lake)
    stored = open_case(lake, sealed.key)
    region = stored.record.regions[0]
    volume = RegionVolume("bench", "bench", sealed.key, region.name, False)
    part = slice(region.z_start, region.z_stop)
    image = WINDOWS[region.name].normalise(stored.read_all("image")[part])
    anatomy = stored.read_all("anatomy")[part]
    home = scratch / "lake" / sealed.key
    files = tuple(path for path in home.rglob("*") if path.is_file())
    return sealed.key, {
        "ours": Side(_ours(stored, volume, patch), files),
        "MONAI": _monai(image, anatomy, scratch / "monai", patch),
        "blosc2": _blosc2(image, anatomy, scratch / "blosc2", patch),
    }


def _ours(stored: StoredCase, volume: RegionVolume, patch: int) -> Draw:
    config = TrainConfig(levels=tuple(float(level == "patch") for level in LEVELS))
    sampler = CropSampler([volume], lambda key: stored, patch, config)

    def draw(rng: np.random.Generator) -> Sample:
        sample = sampler.cut(volume, "patch", rng)
        return sample.x0_ZYX, sample.anatomy_ZYX

    return draw


class _Given(Transform):
    """Stands for reading and scaling, which MONAI does once; being a Transform, its result is cached."""

    def __init__(self, image: NDArray, anatomy: NDArray) -> None:
        self.item = {"image": torch.from_numpy(image[None]), "label": torch.from_numpy(anatomy[None])}

    def __call__(self, _: dict) -> dict:
        return self.item


def _monai(image: NDArray, anatomy: NDArray, folder: Path, patch: int) -> Side:
    """What its tutorials do: the prepared volume as one cached tensor file, read whole and cropped at random."""

    crop = RandSpatialCropd(["image", "label"], (patch,) * 3, random_size=False)
    dataset = PersistentDataset([{"case": 0}], Compose([_Given(image, anatomy), crop]), cache_dir=folder)
    dataset[0]

    def draw(rng: np.random.Generator) -> Sample:
        item = dataset[0]
        return np.asarray(item["image"][0]), np.asarray(item["label"][0])

    return Side(draw, tuple(folder.iterdir()))


def _blosc2(image: NDArray, anatomy: NDArray, folder: Path, patch: int) -> Side:
    """What nnU-Net 2.8 chooses for patches of 128³: float32 and labels with a channel axis, read by memory map."""
    folder.mkdir()
    for name, array, codec, level in (
        ("image", image, blosc2.Codec.LZ4HC, 5),
        ("anatomy", anatomy, blosc2.Codec.LZ4HC, 5),
    ):
        settings = {"codec": codec, "clevel": level, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
        chunks, blocks = (
            (1, *(min(n, e) for n, e in zip(array.shape, edges, strict=True))) for edges in ((96, 128, 128), (32,) * 3)
        )
        blosc2.asarray(
            array[None], urlpath=str(folder / f"{name}.b2nd"), mode="w", chunks=chunks, blocks=blocks, cparams=settings
        )
    shape = image.shape

    def draw(rng: np.random.Generator) -> Sample:
        box = (0, *(slice(start, start + patch) for start in (int(rng.integers(0, n - patch + 1)) for n in shape)))
        opened = [
            blosc2.open(str(folder / f"{name}.b2nd"), mode="r", mmap_mode="r", dparams={"nthreads": 1})
            for name in ("image", "anatomy")
        ]
        return opened[0][box], opened[1][box]

    return Side(draw, tuple(folder.iterdir()))


def _times(sides: dict[str, Side], threads: int, cold: bool, samples: int) -> dict[str, float]:
    """Median ms a sample: rounds of `threads` samples at once, the sides in turn."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    with ThreadPoolExecutor(threads) as pool:
        for number in range(samples + 1):  # the first warms up
            for name, side in sides.items():
                if cold:
                    _forget(side.files)
                seeds = [np.random.default_rng((number, thread)) for thread in range(threads)]
                started = time.perf_counter()
                drawn = list(pool.map(side.draw, seeds))
                times[name].append(1000 * (time.perf_counter() - started) / threads)
                if {(x.dtype.name, y.dtype.name) for x, y in drawn} != {("float32", "uint8")}:
                    raise AssertionError(f"{name} gives another kind of sample")
    return {name: median(values[1:]) for name, values in times.items()}


def _forget(files: tuple[Path, ...]) -> None:
    """Drop files from the kernel's cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _bucket_rows(scratch: Path, key: str, sides: dict[str, Side], patch: int, samples: int) -> list[Row]:
    """Ours by ranges; the others fetch their file whole and read it from there."""
    with counting_server() as (address, counter):
        lake = Lake(f"s3://{BUCKET}", endpoint=address)
        home = scratch / "lake"
        for path in (home / "ct").rglob("*"):
            if path.is_file():
                lake.write(path.relative_to(home).as_posix(), path.read_bytes())
        client = boto3.client("s3", endpoint_url=address, region_name=REGION)
        stored = open_case(lake, key)
        region = stored.record.regions[0]
        remote = {"ours": _ours(stored, RegionVolume("bench", "bench", key, region.name, False), patch)}
        for name in ("MONAI", "blosc2"):
            for path in sides[name].files:
                client.put_object(Bucket=BUCKET, Key=f"{name}/{path.name}", Body=path.read_bytes())
            remote[name] = _fetched(client, name, sides[name].files)
        measured = {name: _counted(counter.count, draw, samples) for name, draw in remote.items()}
    return [
        _row("loader, bucket", name, ms, measured["ours"][0], f"{requests:.0f} requests") | {"MB": size / 1e6}
        for name, (ms, requests, size) in measured.items()
    ]


def _fetched(client: "boto3.client", name: str, files: tuple[Path, ...]) -> Draw:
    def draw(rng: np.random.Generator) -> Sample:
        bodies = [client.get_object(Bucket=BUCKET, Key=f"{name}/{path.name}")["Body"].read() for path in files]
        if name == "MONAI":
            item = torch.load(io.BytesIO(bodies[0]), weights_only=False)
            return np.asarray(item["image"][0]), np.asarray(item["label"][0])
        opened = [blosc2.ndarray_from_cframe(body) for body in bodies]
        return opened[0][(0,)], opened[1][(0,)]

    return draw


def _counted(count: Callable, draw: Draw, samples: int) -> tuple[float, float, float]:
    """Median ms, requests and bytes of a sample, the first left out."""
    draw(np.random.default_rng(0))
    taken = []
    for number in range(1, samples + 1):
        started = time.perf_counter()
        requests, size = count(lambda number=number: draw(np.random.default_rng(number)))
        taken.append((1000 * (time.perf_counter() - started), requests, size))
    ms, requests, size = (median(column) for column in zip(*taken, strict=True))
    return ms, requests, size
