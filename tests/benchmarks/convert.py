"""Conversion, measured: CTs to 1 mm by us and by peers, as throughput of two worker processes of one thread each.

Ours is the whole way to a sealed case: audit, labels, body, regions, pyramid, thumbnails, preview, checksums and shards
beside what the peers do. All sides take turns in one run, on workers that have done one conversion before; a row is the
median of the rounds. `ours in …` rows say where our time goes in one process, `alone` is one worker instead of two.
"""

import cProfile
import multiprocessing
import pstats
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from distributed import Client

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

TITLE = "convert: seconds a case to 1 mm, two workers of one thread; ratio = that side's seconds over ours"
REAL = ("chest-full", "lung-lesion", "abdomen-dicom")
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

Side = Callable[[str, str], None]
Row = dict[str, Any]


def ours(folder: str, out: str, recipe: Recipe) -> None:
    """The case in a folder of its own, sealed in a lake under `out`."""
    source = FolderSource(path=folder)
    row = convert_case(_case(source), source, recipe, open_lake(out))
    if row.status != "sealed":
        raise UserError(f"{folder} was not sealed: {row.reason}")


def run(data: Path, *, quick: bool = False) -> list[Row]:
    """One row per volume and side, then where our time goes, what a second worker brings, and our peak memory."""
    recipe, rounds = (demo(), 1) if quick else (paper(), 3)
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as scratch:
        volumes = {name: data / name for name in (("abdomen-3mm",) if quick else REAL)}
        if not quick:
            volumes[TALL] = make_tall(data / "chest-full", Path(scratch) / "tall", 600)
        rows = []
        with open_cluster(workers=2) as two, open_cluster(workers=1) as one:
            for name, folder in volumes.items():
                rows += _volume_rows(name, str(folder), recipe, rounds, (two, one))
        return [{**row, "peak MB": row.get("peak MB", ""), "allowed MB": row.get("allowed MB", "")} for row in rows]


def _volume_rows(name: str, folder: str, recipe: Recipe, rounds: int, clients: tuple[Client, Client]) -> list[Row]:
    """Every side's rows of one volume."""
    mine = partial(ours, recipe=recipe)
    sides: dict[str, tuple[Side, int]] = {"ours": (mine, 4)}
    sides |= {side: (partial(function, spacing_mm=recipe.spacing_mm), 2) for side, function in peers.SIDES.items()}
    seconds: dict[str, list[float]] = {side: [] for side in (*sides, "ours alone")}
    for turn in range(rounds + 1):  # the first one warms the workers up
        for side, (function, copies) in sides.items():
            seconds[side].append(_throughput(clients[0], function, folder, copies if turn else 2))
        seconds["ours alone"].append(_throughput(clients[1], mine, folder, 2 if turn else 1))
    medians = {side: median(times[1:]) for side, times in seconds.items()}
    rows: list[Row] = [
        {"volume": name, "side": side, "s a case": round(value, 2), "ratio": round(value / medians["ours"], 2)}
        for side, value in medians.items()
    ]
    rows[0] |= peak_memory(folder, recipe)
    rows += [
        {"volume": name, "side": f"ours in {part}", "s a case": round(value, 2), "ratio": ""}
        for part, value in time_by_part(folder, recipe).items()
    ]
    return rows


def _throughput(client: Client, function: Side, folder: str, copies: int) -> float:
    """Wall seconds a conversion, of `copies` conversions of one volume spread over a cluster's workers."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as out:
        targets = [str(Path(out) / str(n)) for n in range(copies)]
        started = time.perf_counter()
        for target, error in fan_out(partial(function, folder), targets, client=client):
            if isinstance(error, Exception):
                raise UserError(f"{folder} to {target}: {error!r}") from error
        return (time.perf_counter() - started) / copies


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
    queue.put(_peak_bytes())


def _peak_bytes() -> int:
    """The most that this process has held; Linux's ru_maxrss would count what its parent held."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
