"""The format of a stored array, measured: codec × chunk × shard on a real chest CT at 1 mm.

Per format: its size, writing it and random crops of it by us, by zarr-python and by tensorstore, and what a crop from a
bucket asks for. nnU-Net's own format stands beside them. All readers take turns on the same random boxes, so that a
busy machine slows all alike; ratios are to ours of the default recipe's format.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import blosc2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from benchmarks import readers
from benchmarks.counting_s3 import BUCKET, Counter, counting_server
from benchmarks.measure import median_seconds, real_volume, timed
from benchmarks.readers import Box, Read, Write
from infra.lake import Lake
from preprocessing import layout
from preprocessing.recipe import paper
from preprocessing.shards import CODECS as STORED
from preprocessing.shards import Codec

REAL_CTS = True
TITLE = "store: one chest CT as int16 at 1 mm; crops in ms, requests and MB per largest crop from a bucket"
CODECS = {
    **STORED,
    "lz4-bitshuffle": Codec("lz4", 5, "bitshuffle"),
    "lz4hc9-bitshuffle": Codec("lz4hc", 9, "bitshuffle"),
    "zstd5-bitshuffle": Codec("zstd", 5, "bitshuffle"),
}
WRITERS = {"zarr": readers.write_by_zarr, "tensorstore": readers.write_by_tensorstore, "ours": readers.write_by_us}
LOCAL = {"ours": readers.by_us, "zarr": readers.by_zarr, "tensorstore": readers.by_tensorstore}
REMOTE = {"ours": readers.by_lake, "zarr": readers.by_zarr_s3, "tensorstore": readers.by_tensorstore_s3}
WORKER = {"async.concurrency": 4, "threading.max_workers": 1}  # what a worker of ours is given


@dataclass(frozen=True)
class Format:
    """One way to lay an array down."""

    codec: str
    chunk: int
    shard: int

    def __str__(self) -> str:
        return f"{self.codec} {self.chunk}/{self.shard}"


DEFAULT = Format(paper().codec, paper().chunk, paper().shard)
OTHERS = (
    Format("lz4-shuffle", 32, 128),
    Format("lz4-shuffle", 64, 128),
    Format("lz4-shuffle", 128, 256),
    Format("lz4-bitshuffle", 64, 256),
    Format("lz4hc9-bitshuffle", 64, 256),
    Format("zstd3-shuffle", 64, 256),
    Format("zstd3-shuffle", 32, 128),
    Format("zstd5-bitshuffle", 64, 256),
)
FORMATS = (DEFAULT, *(each for each in OTHERS if each != DEFAULT))
NNUNET = "nnU-Net blosc2 float32"


@dataclass(frozen=True)
class Plan:
    """How much is measured: `scale` divides every edge, crops are (edge, how many of them)."""

    formats: tuple[Format, ...] = FORMATS
    spacing_mm: float = 1.0
    scale: int = 1
    writes: int = 3
    crops: tuple[tuple[int, int], ...] = ((32, 60), (64, 40), (128, 30))
    remote_crops: int = 8


QUICK = Plan(FORMATS[:2], spacing_mm=4.0, scale=4, writes=1, crops=((8, 2), (16, 2), (32, 2)), remote_crops=1)


def run(data: Path, quick: bool = False) -> list[dict]:
    """One row per format and reader; `x_…` are ratios to ours of the default format."""
    plan = QUICK if quick else Plan()
    image = real_volume(data, "chest-full", plan.spacing_mm).image
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as folder, zarr.config.set(WORKER):
        place = Path(folder)
        written = {
            (str(form), name): _write(image, form, plan, place / str(form), write)
            for form in plan.formats
            for name, write in WRITERS.items()
        }
        written[NNUNET, "blosc2"] = _write_nnunet(image, plan, place / "nnunet.b2nd")
        crops = _crops(image, _open_all(place, plan), plan)
        asked = _requests(image, place, plan)
    rows = [_row(name, written[name], times, asked, plan) for name, times in crops.items()]
    return [row | _ratios(row, rows[0]) for row in rows]


def _write(image: NDArray, form: Format, plan: Plan, folder: Path, write: Write) -> tuple[float, float]:
    """MB and seconds of writing."""
    edges = paper().replace(chunk=form.chunk // plan.scale, shard=form.shard // plan.scale)
    chunk, shard = layout.chunk_and_shard(image.shape, edges)
    codec = CODECS[form.codec]
    blosc = BloscCodec(typesize=image.itemsize, cname=codec.name, clevel=codec.level, shuffle=codec.shuffle)
    times = []
    for _ in range(plan.writes):
        shutil.rmtree(folder, ignore_errors=True)
        zarr.create_array(
            folder,
            shape=image.shape,
            dtype=image.dtype,
            chunks=chunk,
            shards=shard,
            compressors=blosc,
            fill_value=layout.FILL["image"],
            config={"write_empty_chunks": True},
        )
        times.append(timed(lambda: write(folder, image, codec))[0])
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, median(times)


def _write_nnunet(image: NDArray, plan: Plan, path: Path) -> tuple[float, float]:
    """What nnU-Net 2.8 chooses for patches of 128³; it keeps float32 with a channel axis."""
    data = image[None].astype(np.float32)
    settings = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    chunks, blocks = ((1, *(min(n, e // plan.scale) for n, e in zip(image.shape, edges, strict=True)))
                      for edges in ((96, 128, 128), (32, 32, 32)))  # fmt: skip

    def write() -> None:
        blosc2.asarray(data, urlpath=str(path), mode="w", chunks=chunks, blocks=blocks, cparams=settings)

    time = median_seconds(write, plan.writes)
    return path.stat().st_size / 1e6, time


def _open_all(folder: Path, plan: Plan) -> dict[tuple[str, str], Read]:
    opened = {(str(form), name): open_(folder / str(form)) for form in plan.formats for name, open_ in LOCAL.items()}
    return opened | {(NNUNET, "blosc2"): readers.by_blosc2(folder / "nnunet.b2nd")}


def _crops(image: NDArray, opened: dict[tuple[str, str], Read], plan: Plan) -> dict[tuple[str, str], dict[int, float]]:
    """Median ms per reader and edge; every crop is compared with the image that was written."""
    times: dict[tuple[str, str], dict[int, list[float]]] = {name: defaultdict(list) for name in opened}
    rng = np.random.default_rng(0)
    for edge, count in plan.crops:
        for box in (_box(rng, image.shape, edge) for _ in range(count)):
            for name, read in opened.items():
                time, crop = timed(lambda read=read, box=box: read(box))
                _check(image, box, crop, name)
                times[name][edge].append(1000 * time)
    return {name: {edge: median(values) for edge, values in by_edge.items()} for name, by_edge in times.items()}


def _box(rng: np.random.Generator, shape: tuple[int, ...], edge: int) -> Box:
    start = tuple(int(rng.integers(0, n - edge + 1)) for n in shape)
    return start, tuple(n + edge for n in start)


def _check(image: NDArray, box: Box, crop: NDArray, name: object) -> None:
    if not np.array_equal(image[tuple(slice(a, b) for a, b in zip(*box, strict=True))], crop):
        raise AssertionError(f"{name} reads other voxels than were written")


def _requests(image: NDArray, folder: Path, plan: Plan) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean requests and MB per largest crop, by format and reader; one format for each chunk and shard."""
    rng = np.random.default_rng(1)
    boxes = [_box(rng, image.shape, plan.crops[-1][0]) for _ in range(plan.remote_crops)]
    counted = {}
    with counting_server() as (address, counter):
        lake = Lake(f"s3://{BUCKET}", endpoint=address)
        for form in map(str, {(form.chunk, form.shard): form for form in reversed(plan.formats)}.values()):
            key = form.replace(" ", "-").replace("/", "-")
            for path in (folder / form).rglob("*"):
                if path.is_file():
                    lake.write(f"{key}/{path.relative_to(folder / form).as_posix()}", path.read_bytes())
            for name, open_ in REMOTE.items():
                counted[form, name] = _counted(counter, open_(address, key), image, boxes, (form, name))
    return counted


def _counted(
    counter: Counter, read: Callable[[Box], NDArray], image: NDArray, boxes: list[Box], name: object
) -> tuple[float, float]:
    _check(image, boxes[0], read(boxes[0]), name)
    counts = [counter.count(lambda box=box: read(box)) for box in boxes]
    requests, sizes = np.mean(counts, axis=0)
    return float(requests), float(sizes) / 1e6


def _row(name: tuple[str, str], written: tuple, times: dict[int, float], asked: dict, plan: Plan) -> dict:
    requests, fetched = asked.get(name, (None, None))
    crops = {f"ms_{edge}": times[edge] for edge, _ in plan.crops}
    named = {"format": name[0], "by": name[1], "MB": written[0], "write_s": written[1]}
    return named | crops | {"requests": requests, "fetched_MB": fetched}


def _ratios(row: dict, default: dict) -> dict:
    """MB, writing and every crop over those of the first row."""
    names = [name for name in row if name in ("MB", "write_s") or name.startswith("ms_")]
    return {f"x_{name}": row[name] / default[name] for name in names}
