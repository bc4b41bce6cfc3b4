"""What an ingest costs beside converting, how it scales, and the unit costs of converting real CTs.

Trivial cases go through the real flow in a process of its own each (see `ingest_process.py`). Weak scaling converts N
phantoms by one worker and 2N by two, warm, in turns. A manifest of made-up rows is committed and read in a process of
its own. Real CTs are converted by one worker into a folder, then into a bucket whose server counts requests.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from distributed import Client

from benchmarks.counting_s3 import BUCKET, Counter, counting_server
from benchmarks.measure import timed
from infra.cluster import fan_out, open_cluster
from infra.errors import UserError
from infra.lake import Lake, open_lake
from preprocessing.case import Case
from preprocessing.convert import convert_case
from preprocessing.manifest import ManifestRow
from preprocessing.recipe import Recipe, demo, paper
from preprocessing.seal import read_seal
from preprocessing.sources.base import Source
from preprocessing.sources.folder import FolderSource
from preprocessing.sources.phantom import PhantomSource

REAL_CTS = True
TITLE = "ingest: orchestration, weak scaling, a manifest's steps, unit costs of real CTs"
TESTS = Path(__file__).parents[1]
TRIVIAL, QUICK_TRIVIAL = (1_000, 10_000), (4, 12)
PHANTOMS, ROUNDS = 4, 3
ROWS, QUICK_ROWS = 100_000, 300
CTS, QUICK_CTS = ("chest-full", "abdomen-dicom", "lung-lesion", "abdomen-3mm", "head-4mm"), ("abdomen-3mm",)

Row = dict[str, Any]


def run(data: Path, *, quick: bool = False) -> list[Row]:
    """Rows of all four parts."""
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as name:
        folder = Path(name)
        rows = [one for number in (QUICK_TRIVIAL if quick else TRIVIAL) for one in trivial(folder, number)]
        rows += weak_scaling(folder, 1 if quick else PHANTOMS, 1 if quick else ROUNDS)
        rows += manifest(folder, QUICK_ROWS if quick else ROWS)
        return rows + unit_costs(folder, data, QUICK_CTS if quick else CTS, demo() if quick else paper())


def row(what: str, units: int, seconds: float | None = None, **more: Any) -> Row:
    """What the table shows of one thing; `s` are wall seconds unless its name says CPU."""
    each = None if seconds is None else 1e3 * seconds / units
    empty = dict.fromkeys(("MB", "requests", "ratio"))
    return {"what": what, "units": units, "s": seconds, "ms_each": each, **empty, **more}


def trivial(folder: Path, number: int) -> list[Row]:
    """The flow over so many trivial cases, the same again, the plan; `MB` is the peak of its process, then the rest.

    Orchestration is what the flow takes beyond one of a single case, which starts the same workers.
    """
    home = folder / f"home-{number}"
    found = _process(["-m", "benchmarks.ingest_process", str(number)], {"MEDDIFF_HOME": str(home), "MEDDIFF_LAKE": ""})
    return [
        row("flow, first, all of it", number, found["first_s"], MB=found["peak_MB"]),
        row("orchestration", number, found["first_s"] - found["start_s"], MB=found["after_MB"]),
        row("orchestration, CPU of the flow's process", number, found["first_cpu_s"] - found["start_cpu_s"]),
        row("flow, nothing changed", number, found["again_s"]),
        row("plan, nothing changed", number, found["plan_s"]),
    ]


def weak_scaling(folder: Path, number: int, rounds: int) -> list[Row]:
    """N phantoms by one worker, 2N by two; `ratio` of the second is the efficiency, of medians."""
    source, lake = PhantomSource(patients=2 * number, dose_pairs=False), open_lake(str(folder / "weak"))
    cases = source.cases()[: 2 * number]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with open_cluster(workers=1) as one, open_cluster(workers=2) as two:
        clients = {1: one, 2: two}
        for client in clients.values():  # makes the phantoms' files, and warms every worker
            _convert_anew(lake, client, source, cases)
        for _ in range(rounds):
            for workers, client in clients.items():
                some = cases[: workers * number]
                seconds[workers].append(timed(lambda c=client, some=some: _convert_anew(lake, c, source, some))[0])
    t1, t2 = (median(seconds[workers]) for workers in (1, 2))
    rows = [row("phantoms by 1 worker", number, t1), row("phantoms by 2 workers", 2 * number, t2)]
    rows[1]["ratio"] = t1 / t2
    return rows


def _convert_anew(lake: Lake, client: Client, source: Source, cases: list[Case]) -> list[ManifestRow]:
    shutil.rmtree(Path(lake.url) / "ct", ignore_errors=True)
    work = partial(convert_case, source=source, recipe=demo(), lake=lake)
    return [_require_sealed(case, result) for case, result in fan_out(work, cases, client=client)]


def _require_sealed(case: Case, result: ManifestRow | Exception) -> ManifestRow:
    if isinstance(result, Exception) or result.status != "sealed":
        raise UserError(f"{case.id} was not sealed: {result!r}")
    return result


def manifest(folder: Path, number: int) -> list[Row]:
    """A manifest of made-up rows, step by step; its file's MB, and the most MB that the process held."""
    script = str(TESTS / "preprocessing" / "planning_scale.py")
    found = _process([script, "simulate", str(folder / "made-up"), str(number)], {})
    steps = ("commit", "commit_one_more", "read", "fingerprint", "split", "plan")
    rows = [row(f"manifest: {step.replace('_', ' ')}", number, found[f"{step}_s"]) for step in steps]
    rows[0]["MB"] = found["file_bytes"] / 2**20
    return [*rows, row("manifest: peak memory", number, MB=found["peak_bytes"] / 2**20)]


def unit_costs(folder: Path, data: Path, names: tuple[str, ...], recipe: Recipe) -> list[Row]:
    """CPU seconds and stored MB of each CT, then the requests of storing it in a bucket."""
    work = [next((source, case) for case in source.cases() if not case.problem) for source in _sources(data, names)]
    rows = []
    with counting_server() as (address, counter), mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": address}):
        lake, bucket = open_lake(str(folder / "real")), open_lake(f"s3://{BUCKET}/lake")
        for name, (source, case) in zip(names, work, strict=True):
            convert = partial(convert_case, case, source, recipe)
            _require_sealed(case, convert(open_lake(str(folder / "warm"))))
            began = time.process_time()
            sealed = _require_sealed(case, convert(lake))
            seconds = time.process_time() - began
            seal = read_seal(lake, sealed.key)
            stored = sum(size for size, _ in seal.objects.values()) if seal else 0
            rows.append(row(f"{name}: converted (CPU), stored", 1, seconds, MB=stored / 1e6))
            rows += _requests(name, counter, partial(convert, bucket))
    return rows


def _requests(name: str, counter: Counter, store: Callable[[], object]) -> list[Row]:
    asked = counter.by_method(store)
    writes = sum(asked[method] for method in ("PUT", "POST"))
    reads = sum(asked[method] for method in ("GET", "HEAD"))
    return [row(f"{name}: bucket, {kind}", 1, requests=n) for kind, n in (("writes", writes), ("reads", reads))]


def _sources(data: Path, names: tuple[str, ...]) -> list[FolderSource]:
    if missing := [name for name in names if not (data / name).is_dir()]:
        raise UserError(f"{data} holds no {missing[0]}: --data takes the folder of real CTs that the tests use")
    return [FolderSource(path=str(data / name)) for name in names]


def _process(arguments: list[str], environment: dict[str, str]) -> Row:
    """What a Python process of its own prints last, as JSON."""
    paths = f"{TESTS.parent}{os.pathsep}{TESTS}"
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
