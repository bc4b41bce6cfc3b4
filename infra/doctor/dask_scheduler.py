"""The Dask scheduler that MEDDIFF_DASK_ADDRESS names: it answers, and its workers fit this package and see the lake."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from infra.doctor.check import Check, told
from infra.lake import MARKER, Lake
from infra.settings import Settings

if TYPE_CHECKING:
    from distributed import Client

WHAT = "Dask"
OURS = ("meddiff", "zarr", "numpy")
PACKAGES = ("python", "dask", "distributed", "cloudpickle", *OURS)
REQUEST_SECONDS = 4
NAMED = 3
START = "start it (dask scheduler), or unset MEDDIFF_DASK_ADDRESS: every ingest then starts its own workers"


def look_at_dask(settings: Settings) -> Iterator[Check]:
    """Missing where the scheduler, all workers, or our package on one of them are not there."""
    address = settings.dask_address
    if not address:
        yield Check(what=WHAT, status="ok", found="no scheduler named: every ingest starts its own workers")
        return
    from distributed import Client

    with asyncio.Runner() as runner:
        client = runner.run(_made(lambda: Client(address, asynchronous=True, set_as_default=False)))
        try:
            if fault := _fault(runner, client):
                yield Check(what=WHAT, status="missing", found=f"{address}: {fault}", remedy=START)
            else:
                yield from _look_through(runner, client, settings)
        finally:
            with suppress(TimeoutError):
                runner.run(_within(client.close()))


def _fault(runner: asyncio.Runner, client: "Client") -> str:
    """Why the client cannot be connected; "" where it is."""
    try:
        runner.run(_within(client))
    except Exception as error:  # noqa: BLE001 - where another server listens, anything may be raised
        return told(error)
    return ""


async def _made(client: "Callable[[], Client]") -> "Client":
    """A client of the running loop, not yet started: the blocking one waits for a silent scheduler without end."""
    return client()


async def _within(request: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(request, REQUEST_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {REQUEST_SECONDS} s") from error


def _look_through(runner: asyncio.Runner, client: Any, settings: Settings) -> Iterator[Check]:
    """What a connected, asynchronous client is told."""
    about = client.scheduler.identity(n_workers=-1)  # what this client's own `scheduler_info` has is of no worker
    workers = runner.run(_within(about))["workers"]
    yield _counted(settings.dask_address, workers)
    if not workers:
        return
    try:
        yield compare(runner.run(_within(client.get_versions(check=False, packages=[*OURS]))))
        yield from _package_and_lake(lambda *task, **where: runner.run(_within(client.run(*task, **where))), settings)
    except TimeoutError as error:
        remedy = "see the workers' logs: one is stopped, or too busy to answer"
        yield Check(what="Dask workers", status="missing", found=told(error), remedy=remedy)


def _counted(address: str, workers: dict[str, dict[str, Any]]) -> Check:
    if not workers:
        remedy = f"start workers with this package installed: dask worker {address} --nthreads 1"
        return Check(what=WHAT, status="missing", found=f"{address} has no worker", remedy=remedy)
    gib = sorted(worker["memory_limit"] / 2**30 for worker in workers.values())
    memory = "no memory limit" if gib[0] == 0 else f"{gib[0]:.1f} GiB each"
    if gib[-1] > gib[0] > 0:
        memory = f"{gib[0]:.1f} to {gib[-1]:.1f} GiB each"
    threads = sum(worker["nthreads"] for worker in workers.values())
    return Check(what=WHAT, status="ok", found=f"{address}: {len(workers)} × worker, {threads} × thread, {memory}")


def compare(found: dict[str, Any]) -> Check:
    """Whether scheduler and workers have the versions of this client, in the form of Dask's `get_versions`."""
    what, here = "Dask versions", found["client"]["packages"]
    there = {"scheduler": found["scheduler"], **found["workers"]}
    differ = {
        f"{name} {packages.get(name) or 'not installed'} on {place}, here {here[name]}"
        for place, packages in ((place, node["packages"]) for place, node in there.items())
        for name in PACKAGES
        if packages.get(name) != here[name] and not (place == "scheduler" and name in OURS)
    }
    if not differ:
        return Check(what=what, status="ok", found=", ".join(f"{name} {here[name]}" for name in PACKAGES))
    remedy = "install the same requirements.lock for client, scheduler and workers, and the same Python"
    return Check(what=what, status="warning", found=_few(sorted(differ)), remedy=remedy)


def _package_and_lake(run: Callable[..., dict[str, Any]], settings: Settings) -> Iterator[Check]:
    """The lake is asked for only of workers that have the package."""
    imported = run(importlib.import_module, __name__, on_error="return")
    lacking = {worker: told(error) for worker, error in imported.items() if isinstance(error, Exception)}
    remedy = "install this package there: pip install -r requirements.lock, then the package itself"
    yield _all("Dask workers' package", len(imported), lacking, "import this package", remedy)
    able = [worker for worker in imported if worker not in lacking]
    if not able:
        return
    place = Lake(settings.lake_url.removeprefix("file://"), "", settings.s3_endpoint, settings.s3_region)
    here = marker_of(place)
    seen = run(marker_of, place, workers=able, on_error="return")
    blind = {worker: told(text) if isinstance(text, Exception) else text or "no lake there"
             for worker, text in seen.items() if text != here}  # fmt: skip
    remedy = f"mount {place.url} on every worker, or use a bucket"
    if place.bucket is not None:
        remedy = "give the workers the same AWS_ENDPOINT_URL, AWS_REGION and credentials"
    good = f"see {place.url}" if here else "see no lake, nor is there one"
    yield _all("Dask workers' lake", len(able), blind, good, remedy)


def marker_of(lake: Lake) -> str:
    """The lake's marker; "" where there is no lake. Runs on a worker."""
    try:
        return lake.read(MARKER).decode()
    except FileNotFoundError:
        return ""


def _all(what: str, count: int, wrong: dict[str, str], good: str, remedy: str) -> Check:
    if not wrong:
        return Check(what=what, status="ok", found=f"all {count} {good}")
    found = f"{len(wrong)} of {count} do not: {_few([f'{worker} ({text})' for worker, text in wrong.items()])}"
    return Check(what=what, status="missing", found=found, remedy=remedy)


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more
