"""What `bench ingest` runs in a process of its own: the ingest flow over cases that take no time, then once more.

The flow, its Prefect server, Dask and the commit are real; what would fetch and convert a case answers with its row
at once, in the worker. Rows have no signatures: looking for duplicates has a benchmark of its own.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from process_memory import peak_bytes, resident_bytes

from flows.params import SourceSpec
from flows.plan import plan
from flows.profiles import Profile
from flows.session import flows_here, open_session
from infra.config import Config
from infra.lake import Lake, open_lake
from preprocessing import ingest
from preprocessing.case import Case
from preprocessing.ingest_counts import Converted
from preprocessing.manifest import ManifestRow
from preprocessing.recipe import Recipe
from preprocessing.sources import registry
from preprocessing.sources.base import SourceInfo

NAME = "trivial"
INFO = SourceInfo(name=NAME, title="cases that take no time", licence="CC0-1.0")


class TrivialSource(Config):
    """So many cases, two a patient, whose version is known from the listing."""

    number: int = 1

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry."""
        return INFO

    def cases(self, lake: Lake | None = None, progress: object = None) -> list[Case]:
        """Every case."""
        return [_case(number) for number in range(self.number)]

    def is_listed(self, lake: Lake | None) -> bool:
        """Always."""
        return True

    def finish(self, lake: Lake) -> None:
        """Nothing was pulled."""


def _case(number: int) -> Case:
    return Case(
        source=NAME, id=f"case-{number:06d}", patient=f"patient-{number // 2}", image=(f"s3://nowhere/{number}",),
        licence=INFO.licence, version=f"{number:032x}",
    )  # fmt: skip


def no_work(case: Case, source: TrivialSource, recipe: Recipe, lake: Lake, stale_before: object = None) -> Converted:
    """The row of a sealed case, without a volume."""
    row = ManifestRow(
        source=case.source, case=case.id, patient=case.patient, status="sealed", input="0" * 16, seal="1" * 32,
        key=f"ct/{recipe.fingerprint}/{NAME}/{case.id}/{'0' * 16}.zarr", regions=("chest",), anatomy="full",
        licence=case.licence, origin=case.origin, version=case.token,
    )  # fmt: skip
    return Converted(row)


def run(number: int) -> dict[str, float]:
    """Seconds of the flow, of the same again, of the plan, and MB of this process, for so many trivial cases.

    `start` is the flow over a source of one case in a lake of its own: what starting costs, workers included. One more
    before it starts the Prefect server.
    """
    settings = open_session()
    with flows_here(settings):
        from flows.ingest import IngestParams, ingest_ct

        def ingested(place: str, cases: int) -> Callable[[], dict[str, Any]]:
            spec = SourceSpec(name=NAME, options={"number": cases})
            return lambda: ingest_ct(IngestParams(lake=f"{settings.home}/{place}", recipe="demo", sources=(spec,)))

        ingested("first", 1)()
        start_s, start_cpu_s, _ = _timed(ingested("start", 1))
        first_s, first_cpu_s, done = _timed(ingested("lake", number))
        after = resident_bytes()
        again_s, _, unchanged = _timed(ingested("lake", number))
    if done["cases"] != number or unchanged["fingerprint"] != done["fingerprint"]:
        raise SystemExit(f"{done['cases']} of {number} cases were committed")
    lake = open_lake(f"{settings.home}/lake")
    spec = SourceSpec(name=NAME, options={"number": number})
    plan_s, _, stages = _timed(lambda: plan(lake, Profile(lake=lake.url, recipe="demo", sources=(spec,))))
    if not stages[0].unchanged:
        raise SystemExit(f"the plan says {stages[0].why}")
    seconds = {"start_s": start_s, "first_s": first_s, "again_s": again_s, "plan_s": plan_s}
    cpu = {"start_cpu_s": start_cpu_s, "first_cpu_s": first_cpu_s}
    return {**seconds, **cpu, "after_MB": after / 2**20, "peak_MB": peak_bytes() / 2**20}


def _timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall and CPU seconds of this process, and the result."""
    began, busy = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - began, time.process_time() - busy, result


if __name__ == "__main__":
    from benchmarks import ingest_process  # under the name by which workers import it

    sources = {NAME: ("benchmarks.ingest_process", "TrivialSource")}
    with (
        mock.patch.dict(registry.OWN, sources),
        mock.patch.dict(registry.SOURCES, sources),
        mock.patch.object(ingest, "_convert", ingest_process.no_work),
    ):
        print(json.dumps(ingest_process.run(int(sys.argv[1]))))
