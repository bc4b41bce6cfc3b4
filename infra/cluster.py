"""The cluster: a function over many items in other processes, through Dask, with a bounded number in flight.

Every item comes back exactly once with its result or its exception; the items of a worker that dies are run again one
at a time, and one that kills its worker again comes back with Dask's KilledWorker. Without an address a cluster of
this machine's cores is started, one process and one thread each.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, WorkerPlugin, as_completed

from infra.errors import UserError
from infra.processes import available_cores
from infra.settings import WORKER

Item = TypeVar("Item")
Result = TypeVar("Result")

LIBRARY_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "BLOSC_NTHREADS",
)
IN_FLIGHT_PER_WORKER = 3
MOST_TOGETHER = 16
TOGETHER_SECONDS = 0.05
CONNECT_SECONDS = 10
IDLE = {  # Dask looks at itself less: 4 % of a core in every worker before, a tenth of that with these; and on Python
    # 3.11 its profiler can stop a process for good (a collection inside `sys._current_frames` waits for its own lock)
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}
DASK_CONFIG = {
    "distributed.worker.daemon": False,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.allowed-failures": 0,
    "distributed.comm.timeouts.connect": "30s",
    **IDLE,
}


class SingleThreaded(WorkerPlugin):
    """Keeps a worker's libraries to one thread and its Zarr to a few requests, and says which one it is."""

    name = "meddiff-single-threaded"

    def setup(self, worker: Any) -> None:
        """Called once in every worker, also in one that is started anew."""
        from infra.lake import limit_zarr_concurrency

        os.environ.update(dict.fromkeys(LIBRARY_THREADS, "1"))
        os.environ[WORKER] = str(worker.name)
        limit_zarr_concurrency()
        logging.getLogger("distributed").setLevel(logging.ERROR)


@contextmanager
def open_cluster(address: str = "", workers: int = 0) -> Generator[Client]:
    """A client of the scheduler at `address`, or of a new local cluster of `workers` processes (0 = cores).

    Raises:
        UserError: nobody answers at the address.
    """
    environment = dict.fromkeys(LIBRARY_THREADS, "1")  # without Dask's malloc trimming: a quarter of the time
    with (
        _kept_as_it_is(environment),
        dask.config.set({**DASK_CONFIG, "distributed.nanny.pre-spawn-environ": environment}),
    ):
        if address:
            with _connect(address) as client:
                client.register_plugin(SingleThreaded())
                yield client
            return
        with (
            LocalCluster(
                n_workers=workers or available_cores(),
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            client.register_plugin(SingleThreaded())
            yield client


@contextmanager
def _kept_as_it_is(names: Iterable[str]) -> Generator[None]:
    """Dask writes its workers' environment into this process too: one thread for all that is loaded afterwards."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def fan_out(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    address: str = "",
    workers: int = 0,
    client: Client | None = None,
) -> Iterator[tuple[Item, Result | Exception]]:
    """(item, result or exception) for every item, in order of completion; function and items must pickle.

    Pass the `client` of `open_cluster` to share one cluster between several calls.

    Raises:
        UserError: nobody answers at the address.
    """
    if client is not None:
        yield from _fan_out(client, function, items)
        return
    with open_cluster(address, workers) as own:
        yield from _fan_out(own, function, items)


def _fan_out(
    client: Client, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result | Exception]]:
    cores = max(1, len(client.scheduler_info()["workers"]))
    suspects: list[Item] = []
    for group, results in _bounded(client, function, items, IN_FLIGHT_PER_WORKER * cores, MOST_TOGETHER):
        if isinstance(results, KilledWorker) or (isinstance(results, Exception) and len(group) > 1):
            suspects += group  # Dask blames every task that the dead worker held
        else:
            yield from _paired(group, results)
    for group, results in _bounded(client, function, suspects, 1, 1):
        yield from _paired(group, results)


def _paired(group: Sequence[Item], results: list[Any] | Exception) -> Iterator[tuple[Item, Any]]:
    return zip(group, [results] * len(group) if isinstance(results, Exception) else results, strict=True)


def _bounded(
    client: Client, function: Callable[[Item], Result], items: Iterable[Item], limit: int, together: int
) -> Iterator[tuple[list[Item], list[Any] | Exception]]:
    """Groups of items with their results, or with what became of the whole group; `limit` groups are in flight.

    A group is one item, or as many quick ones, up to `together`, as `TOGETHER_SECONDS` hold: a future costs
    milliseconds.
    """
    queue, size = iter(items), 1
    back: deque[Item] = deque()  # what a worker did not come to
    waiting: dict[Future, list[Item]] = {}
    done = as_completed()

    def top_up() -> None:
        while len(waiting) < limit and (group := _drawn(back, size) or list(islice(queue, size))):
            future = client.submit(_each, function, group, pure=False)
            waiting[future] = group
            done.add(future)

    top_up()
    try:
        while waiting:
            batch = done.next_batch(block=True)
            for future, outcome in zip(batch, _outcomes(client, batch), strict=True):
                group = waiting.pop(future)
                if isinstance(outcome, Exception):
                    yield group, outcome
                    continue
                seconds, results = outcome
                size = max(1, min(together, int(TOGETHER_SECONDS * len(results) / max(seconds, 1e-9))))
                back += group[len(results) :]
                yield group[: len(results)], results
            top_up()
    finally:
        client.cancel(list(waiting))


def _drawn(back: deque[Item], size: int) -> list[Item]:
    return [back.popleft() for _ in range(min(size, len(back)))]


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> tuple[float, list[Result | Exception]]:
    """Seconds, and the results of as many items as `TOGETHER_SECONDS` hold, of one at least."""
    began, seconds, results = time.perf_counter(), 0.0, []
    for item in items:
        try:
            results.append(function(item))
        except Exception as error:  # noqa: BLE001 - it is this item's, the others go on
            results.append(error)
        seconds = time.perf_counter() - began
        if seconds > TOGETHER_SECONDS:
            break
    return seconds, results


def _outcomes(client: Client, batch: list[Future]) -> list[Any]:
    """Results or exceptions, by one request for all that finished: one for each costs twice the time."""
    finished = [future for future in batch if future.status == "finished"]
    try:
        results = dict(zip(finished, client.gather(finished), strict=True))
    except Exception:  # noqa: BLE001 - one was lost with its worker since and failed when run again
        results = {}
    return [results[future] if future in results else _outcome(future) for future in batch]


def _outcome(future: Future) -> Any:
    if future.status == "finished":
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001 - it was lost, run again, and failed
            return error
    error = future.exception()
    return error if isinstance(error, Exception) else RuntimeError(f"{future.status}: {error!r}")


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address} ({error}); start one or unset MEDDIFF_DASK_ADDRESS"
        ) from error
