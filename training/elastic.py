"""Elastic: one job on several ranks of this machine, each a process with a GPU of its own (or a share of the CPU).

The launcher starts them, and ends all where one fails. What rank 0 tells comes back through a queue, so that only the
process that was asked to train talks to trackers. It is not restarted here: whoever asked asks again, and the training
goes on from its last checkpoint.
"""

import multiprocessing
import threading
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from infra.errors import UserError
from training.distributed import joined
from training.job import Job, Listener, train_job

LOG, PICTURE, REFUSED, END = "log", "picture", "refused", "end"
LOOPBACK = "127.0.0.1"


def train_on_ranks(job: Job, listener: Listener) -> None:
    """Train a job on as many ranks as its config names; it is sealed when this returns.

    Raises:
        UserError: as `train_job`, in whichever rank; there are fewer GPUs than ranks; or a rank was lost.
    """
    ranks = job.config.train.ranks
    if torch.cuda.is_available() and torch.cuda.device_count() < ranks:
        raise UserError(f"train.ranks is {ranks}, but this machine has {torch.cuda.device_count()} GPUs; name as many")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{LOOPBACK}:0",
        local_addr=LOOPBACK,
        max_restarts=0,
    )
    with _heard(listener) as (messages, refusals):
        try:
            elastic_launch(config, _train_rank)(job, messages)
        except ChildFailedError as error:
            lost = error
        else:
            return
    if refusals:
        raise UserError(refusals[0])
    rank, failure = lost.get_first_failure()
    raise UserError(
        f"rank {rank} of {ranks} was lost (exit code {failure.exitcode}): {failure.message}; run the same command "
        "again, it goes on from the last checkpoint"
    ) from lost


@record
def _train_rank(job: Job, messages: Queue) -> None:
    tell = Listener(
        lambda step, values: messages.put((LOG, step, dict(values))),
        lambda step, png: messages.put((PICTURE, step, png)),
    )
    with joined() as (rank, device):
        try:
            train_job(job, rank, device, tell)
        except UserError as error:
            messages.put((REFUSED, rank.index, str(error)))
            messages.close()
            messages.join_thread()  # the launcher ends this process soon
            raise


@contextmanager
def _heard(listener: Listener) -> Generator[tuple[Queue, list[str]]]:
    """A queue whose messages reach the listener while the block runs, and the refusals among them."""
    messages: Queue = multiprocessing.get_context("spawn").Queue()
    refusals: list[str] = []

    def hear() -> None:
        while (message := messages.get())[0] != END:
            kind, step, content = message
            if kind == REFUSED:
                refusals.append(content)
            elif kind == LOG and listener.on_log:
                listener.on_log(step, content)
            elif kind == PICTURE and listener.on_picture:
                listener.on_picture(step, content)

    thread = threading.Thread(target=hear, name="ranks", daemon=True)
    thread.start()
    try:
        yield messages, refusals
    finally:
        messages.put((END, 0, None))
        thread.join()
