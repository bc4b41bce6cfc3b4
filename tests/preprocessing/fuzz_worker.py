"""A process that reads files which may be poison: limited in memory, watched, and replaced when it dies."""

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

SPARE_BYTES = 1 << 30  # that a worker may ask for on top of what its libraries take


class WorkerDiedError(Exception):
    """The process ended, or did not answer in time, while it worked on an input."""


class Worker:
    """Runs one function in a process of its own; a call that kills or hangs it raises and the next one starts anew."""

    def __init__(self, function: Callable, seconds: float) -> None:
        self.function = function
        self.seconds = seconds
        self._process = None

    def __call__(self, *arguments: object) -> object:
        if self._process is None:
            self._start()
        self._pipe.send(arguments)
        if not self._pipe.poll(self.seconds):
            self.close()
            raise WorkerDiedError(f"no answer within {self.seconds} s")
        try:
            return self._pipe.recv()
        except EOFError:
            code = self._end()
            raise WorkerDiedError(f"the process ended with code {code}") from None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.function), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(120) or self._pipe.recv() != "ready":
            raise RuntimeError("the worker did not start")

    def _end(self) -> int | None:
        self._process.join(10)
        code, self._process = self._process.exitcode, None
        self._pipe.close()
        return code

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._end()


def _serve(pipe: Connection, function: Callable) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + SPARE_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(function(*arguments))
