"""Conversion, measured: CTs to 1 mm by us and by peers, as throughput of two worker processes of one thread each.

Ours is the whole way to a sealed case: audit, labels, body, regions, pyramid, thumbnails, preview, checksums and shards
beside what the peers do. All sides take turns in one run, in processes that have done one conversion before; a row is
the median of the rounds. What a second worker brings is held against what two processes without Dask bring, and `CPU s`
(all threads of the process that converts) tells waiting from computing: where it grows with the second process, the
cores share what they compute with. `ours in …` rows say where our time goes in one process.
"""

import cProfile
import multiprocessing
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client
from process_memory import peak_bytes

from benchmarks import convert_peers as peers
from infra.cluster import fan_out, open_cluster
from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.convert import convert_case
from preprocessing.decoding.decode import read_raster
from preprocessing.geometry import Geometry
from preprocessing.recipe import Recipe, demo, paper
from preprocessing.resample import output_grid
from preprocessing.sources.folder import FolderSource

REAL_CTS = True
TITLE = "convert: seconds a case to 1 mm, two workers of one thread; ratio = that side's seconds over ours"
ROUNDS = {"chest-full": 3, "lung-lesion": 2, "abdomen-dicom": 2}
TALL = "chest 512x512x600"
ALLOWED_EXTRA = 512 * 2**20
PARTS = {
    "checksums": ("file_checksums",),
    "decode": ("read_image", "decode_labels"),
    "audit": ("audit",),
    "resample": ("resample", "resample_onto"),
    "body and anatomy": ("complete_anatomy",),
    "regions": ("split_regions",),
    "pyramid": ("_halved",),
    "thumbnails": ("_thumbnail",),
    "codec": ("encode_shard",),
    "preview": ("preview",),
    "seal": ("seal_case",),
}

Work = Callable[[str, str], None]
Row = dict[str, Any]
Spread = Callable[[Callable[[str], float], list[str]], list[float]]


@dataclass(frozen=True)
class Side:
    """A way to convert: the work, how it is spread over processes, and how many copies a round converts."""

    work: Work
    spread: Spread
    copies: int


def ours(folder: str, out: str, recipe: Recipe) -> None:
    """The case in a folder of its own, sealed in a lake under `out`."""
    source = FolderSource(path=folder)
    row = convert_case(_case(source), source, recipe, open_lake(out))
    if row.status != "sealed":
        raise UserError(f"{folder} was not sealed: {row.reason}")


def run(data: Path, *, quick: bool = False) -> list[Row]:
    """One row per volume and side, then where our time goes, and our peak memory."""
    recipe = demo() if quick else paper()
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as scratch, _open_sides(recipe) as sides:
        rounds = {data / name: number for name, number in (ROUNDS if not quick else {"abdomen-3mm": 1}).items()}
        if not quick:
            rounds[make_tall(data / "chest-full", Path(scratch) / TALL, 600)] = 1
        smallest = min(rounds, key=lambda folder: sum(path.stat().st_size for path in folder.iterdir()))
        for side in sides.values():
            _throughput(side, str(smallest))  # imports, first touches
        rows: list[Row] = []
        for folder, number in rounds.items():
            rows += _volume_rows(folder, recipe, number, sides)
        return rows


@contextmanager
def _open_sides(recipe: Recipe) -> Iterator[dict[str, Side]]:
    """All sides by name, ours by two Dask workers first; they keep their processes."""
    mine = partial(ours, recipe=recipe)
    with ExitStack() as stack:
        two, one = (stack.enter_context(open_cluster(workers=n)) for n in (2, 1))
        spawn = multiprocessing.get_context("spawn")  # they inherit the one thread a library that open clusters set
        plain = {n: stack.enter_context(ProcessPoolExecutor(n, spawn)) for n in (2, 1)}
        yield {
            "ours": Side(mine, partial(_by_dask, two), 4),
            **{
                name: Side(partial(work, spacing_mm=recipe.spacing_mm), partial(_by_dask, two), 2)
                for name, work in peers.SIDES.items()
            },
            "ours, one worker": Side(mine, partial(_by_dask, one), 2),
            "ours, two processes without Dask": Side(mine, partial(_by_pool, plain[2]), 4),
            "ours, one process without Dask": Side(mine, partial(_by_pool, plain[1]), 2),
        }


def _by_dask(client: Client, work: Callable[[str], float], targets: list[str]) -> list[float]:
    done = []
    for target, result in fan_out(work, targets, client=client):
        if isinstance(result, Exception):
            raise UserError(f"{target}: {result!r}") from result
        done.append(result)
    return done


def _by_pool(pool: ProcessPoolExecutor, work: Callable[[str], float], targets: list[str]) -> list[float]:
    return list(pool.map(work, targets))


def _volume_rows(folder: Path, recipe: Recipe, rounds: int, sides: dict[str, Side]) -> list[Row]:
    """Every side's rows of one volume."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds, spent = _throughput(side, str(folder))
            wall[name].append(seconds)
            cpu[name].append(spent)
    base = median(wall["ours"])
    rows = [
        _row(folder.name, name, median(times), median(cpu[name]), round(median(times) / base, 2))
        for name, times in wall.items()
    ]
    rows[0] |= peak_memory(str(folder), recipe)
    parts = time_by_part(str(folder), recipe)
    return rows + [_row(folder.name, f"ours in {part}", value) for part, value in parts.items()]


def _row(volume: str, side: str, seconds: float, cpu: float | str = "", ratio: float | str = "") -> Row:
    spent = cpu if isinstance(cpu, str) else round(cpu, 2)
    return {
        "volume": volume,
        "side": side,
        "s a case": round(seconds, 2),
        "CPU s": spent,
        "ratio": ratio,
        "peak MB": "",
        "allowed MB": "",
    }


def _throughput(side: Side, folder: str) -> tuple[float, float]:
    """Wall seconds a conversion of a side's copies of one volume, and the mean CPU seconds of each."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as out:
        targets = [str(Path(out) / str(n)) for n in range(side.copies)]
        started = time.perf_counter()
        spent = side.spread(partial(_cpu_seconds, side.work, folder), targets)
        return (time.perf_counter() - started) / side.copies, sum(spent) / side.copies


def _cpu_seconds(work: Work, folder: str, target: str) -> float:
    before = time.process_time()
    work(folder, target)
    return time.process_time() - before


def time_by_part(folder: str, recipe: Recipe) -> dict[str, float]:
    """Seconds of our parts in this process, the second conversion of two."""
    with _scratch() as out:
        ours(folder, f"{out}/first", recipe)
        profile = cProfile.Profile()
        profile.runcall(ours, folder, f"{out}/second", recipe)
    stats = pstats.Stats(profile)
    spent = dict.fromkeys(PARTS, 0.0)
    for (_, _, function), (_, _, _, cumulative, callers) in stats.stats.items():  # type: ignore[attr-defined]
        for part, functions in PARTS.items():
            if function in functions and not any(caller[2] in functions for caller in callers):
                spent[part] += cumulative
    return {**spent, "all": stats.total_tt}  # type: ignore[attr-defined]


def peak_memory(folder: str, recipe: Recipe) -> Row:
    """The peak of a fresh process that converts one case, and three times its larger int16 volume plus 512 MB."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_measure_peak, args=(folder, recipe, queue))
    child.start()
    child.join()
    if child.exitcode:
        raise UserError(f"converting {folder} ended with {child.exitcode}")
    return {"peak MB": queue.get() // 2**20, "allowed MB": allowed_bytes(folder, recipe) // 2**20}


def _measure_peak(folder: str, recipe: Recipe, queue: Any) -> None:
    with _scratch() as out:
        ours(folder, out, recipe)
    queue.put(peak_bytes())


def allowed_bytes(folder: str, recipe: Recipe) -> int:
    """What one conversion may hold: three times the int16 bytes of the larger of input and output, and 512 MB."""
    source: Geometry = read_raster(_case(FolderSource(path=folder)).image).geometry
    output = output_grid(source, recipe.spacing_mm)
    return 3 * 2 * max(int(np.prod(g.shape)) for g in (source, output)) + ALLOWED_EXTRA


def make_tall(folder: Path, out: Path, slices: int, *, spacing_mm: float = 0.0, name: str = "ct.nii.gz") -> Path:
    """A copy of a NIfTI CT (int16) stretched to a number of slices, over the same extent or with a slice spacing."""
    import SimpleITK as sitk

    image = sitk.Cast(sitk.ReadImage(str(folder / "ct.nii.gz")), sitk.sitkInt16)
    size, spacing = list(image.GetSize()), list(image.GetSpacing())
    spacing[2] *= size[2] / slices
    size[2] = slices
    grid = image.GetOrigin(), spacing, image.GetDirection()
    stretched = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *grid, -1024)
    if spacing_mm:
        stretched.SetSpacing([*spacing[:2], spacing_mm])
    out.mkdir(parents=True)
    sitk.WriteImage(stretched, str(out / name))
    return out


def _case(source: FolderSource) -> Any:
    return next(case for case in source.cases() if not case.problem)


@contextmanager
def _scratch() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="meddiff-bench-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
