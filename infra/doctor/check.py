"""One finding, and many probes at once: each in a thread of its own, none waited for longer than it may take.

A probe yields its findings one by one. What it found before it failed or went over its time is kept, and the failure
is one more finding: no probe hides another.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from infra.config import Config
from infra.settings import Settings

AGAIN = "run again; if it stays so, see its own log and the network on the way"

Status = Literal["ok", "warning", "missing"]


class Check(Config):
    """What was looked at, how it is, what was found, and what to do where it is not ok."""

    what: str
    status: Status
    found: str
    remedy: str = ""


class Probe(NamedTuple):
    """One thing to look at.

    Args:
        what: names the finding where the probe itself fails.
        look: yields findings.
        seconds: how long it may take.
        essential: whether every run needs it, so that a failure is `missing` and no `warning`.
    """

    what: str
    look: Callable[[Settings], Iterable[Check]]
    seconds: float = 10
    essential: bool = False


def examine(settings: Settings, probes: Sequence[Probe]) -> list[Check]:
    """What every probe found, in the probes' order; no longer than the slowest may take."""
    patients = [_Patient(settings, probe) for probe in probes]
    return [check for patient in patients for check in patient.findings()]


class _Patient:
    """A probe at work; its thread dies with the process if it never ends."""

    def __init__(self, settings: Settings, probe: Probe) -> None:
        self._settings, self._probe = settings, probe
        self._found: list[Check] = []
        self._deadline = time.monotonic() + probe.seconds
        self._thread = threading.Thread(target=self._work, name=f"doctor: {probe.what}", daemon=True)
        self._thread.start()

    def findings(self) -> list[Check]:
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        found = [*self._found]
        if self._thread.is_alive():
            found.append(self._failure(f"no answer within {self._probe.seconds:g} s"))
        return found

    def _work(self) -> None:
        try:
            for check in self._probe.look(self._settings):
                self._found.append(check)
        except Exception as error:  # noqa: BLE001 - a broken probe is a finding
            self._found.append(self._failure(told(error)))

    def _failure(self, found: str) -> Check:
        status: Status = "missing" if self._probe.essential else "warning"
        return Check(what=self._probe.what, status=status, found=found, remedy=AGAIN)


def told(error: BaseException) -> str:
    """An error as one line: what the system calls it, its first line, or its kind where it says nothing."""
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
