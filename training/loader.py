"""Loader: what every step learns from, made ahead of the step in a thread or in processes of its own.

A step's batches are a pure function of its number, so they are the same whoever makes them and nothing need be saved.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from infra.errors import UserError

T = TypeVar("T")
AHEAD = 2  # steps that each process has ready


def made_ahead(make: Callable[[int], T], steps: range, workers: int = 0) -> Iterator[tuple[int, T]]:
    """(step, make(step)) in order, made while the caller works on the one before.

    Without `workers` by one thread, one step ahead; otherwise by so many spawned processes, two steps ahead each, for
    which `make` must be picklable. Nothing is made that is more steps ahead.

    Raises:
        UserError: `make` raised it, in whichever process.
    """
    return zip(steps, _by_processes(make, steps, workers) if workers else _by_thread(make, steps), strict=True)


def _by_thread(make: Callable[[int], T], steps: range) -> Iterator[T]:
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
        waiting = None
        for step in steps:
            following = pool.submit(make, step)
            if waiting:
                yield waiting.result()
            waiting = following
        if waiting:
            yield waiting.result()


def _by_processes(make: Callable[[int], T], steps: range, workers: int) -> Iterator[T]:
    if not steps:
        return
    loader = DataLoader(
        _Made(make),
        sampler=steps,
        batch_size=None,
        num_workers=min(workers, len(steps)),
        prefetch_factor=AHEAD,
        multiprocessing_context="spawn",
        pin_memory=torch.cuda.is_available(),
    )
    for made in loader:
        if isinstance(made, UserError):
            raise made
        yield made


@dataclass(frozen=True)
class _Made(Dataset):
    """A step's number to what is made of it; a refusal travels as a value, its sentence as it is."""

    make: Callable[[int], object]

    def __getitem__(self, index: int) -> object:
        try:
            return self.make(index)
        except UserError as error:
            return error
