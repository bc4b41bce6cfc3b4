"""Checkpoints of one run in the lake: `step-00000100.pt` and, written after it, `step-00000100.json` with its digest.

A checkpoint counts only with its note and only if its bytes have the digest in it; the newest that does is resumed.
The last few are kept. Weights are loaded without unpickling code.
"""

import io
import json
import logging
from dataclasses import dataclass
from typing import Any

import torch

from infra.errors import UserError
from infra.fingerprint import digest
from infra.lake import Lake, storage_errors

logger = logging.getLogger(__name__)
FORMAT = 1

State = dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the run at `key`; `fingerprint` must agree with the one inside them."""

    lake: Lake
    key: str
    fingerprint: str
    keep: int = 2

    def save(self, step: int, state: State) -> None:
        """Write the state (tensors, numbers, strings, lists, dicts) of a step, and drop the oldest.

        Raises:
            UserError: the lake cannot be written.
        """
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "fingerprint": self.fingerprint, "step": step, "state": state}, buffer)
        data = buffer.getvalue()
        note = {"format": FORMAT, "step": step, "sha256": digest(data), "bytes": len(data)}
        try:
            self.lake.write(self.path(step), data)
            self.lake.write(self.path(step, "json"), json.dumps(note).encode())
            for old in self.steps()[: -self.keep]:
                self.lake.delete(self.path(old, "json"))
                self.lake.delete(self.path(old))
        except storage_errors(self.lake.url) as error:
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.lake.url_of(self.key)}: {error}; "
                "make room and run the same command again, it goes on from the last one"
            ) from error

    def latest(self) -> tuple[int, State] | None:
        """Step and state of the newest intact checkpoint; damaged ones are named in the log and passed over.

        Raises:
            UserError: a checkpoint is of a newer format or of another run.
        """
        for step in reversed(self.steps()):
            try:
                return step, self._read(step)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                logger.warning("checkpoint %s is damaged (%s); trying the one before", self.path(step), error)
        return None

    def steps(self) -> list[int]:
        """The steps that have a checkpoint with a note, ascending."""
        names = [key.removeprefix(f"{self.key}/") for key in self.lake.list(self.key)]
        return sorted(int(n[5:13]) for n in names if n.startswith("step-") and n.endswith(".json"))

    def written(self, step: int) -> tuple[str, str]:
        """Key and SHA-256 of the checkpoint of a step."""
        return self.path(step), json.loads(self.lake.read(self.path(step, "json")))["sha256"]

    def path(self, step: int, suffix: str = "pt") -> str:
        """The lake key of a step's file."""
        return f"{self.key}/step-{step:08d}.{suffix}"

    def _read(self, step: int) -> State:
        note = json.loads(self.lake.read(self.path(step, "json")))
        document = read_checkpoint(self.lake, self.path(step), note["sha256"])
        if document["fingerprint"] != self.fingerprint:
            raise UserError(f"{self.path(step)} belongs to another run ({document['fingerprint']}); remove it")
        return document["state"]


def read_checkpoint(lake: Lake, key: str, sha256: str) -> dict[str, Any]:
    """The document of a checkpoint file, on the CPU.

    Raises:
        ValueError: its bytes do not have this digest.
        UserError: it is of a newer format.
    """
    data = lake.read(key)
    if digest(data) != sha256:
        raise ValueError(f"{len(data)} bytes do not have the digest {sha256[:12]}… that was written down")
    document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if document["format"] > FORMAT:
        raise UserError(f"{key} is a checkpoint of format {document['format']}; this meddiff reads up to {FORMAT}")
    return document
