"""A sweep in the lake: its files, its seal, and reading it back without torch.

`runs/evaluate/<fingerprint>/` holds `table.parquet`, `pictures/*.png`, `report.html` and, written last, `seal.json`.
A sweep without a seal does not exist for a reader.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from pydantic import Field

from evaluation.config import Checkpoint
from evaluation.table import aggregate, beside, from_parquet
from infra.config import Config
from infra.errors import UserError
from infra.lake import Lake
from training.runs import FORMAT, read_run, read_seal_as, run_exists


class SweepSeal(Config):
    """`seal.json`: what was measured, on what, and the digest of the table."""

    format: int = FORMAT
    stage: str = "evaluate"
    run: str = Field(description="fingerprint of the sweep")
    manifest: str = Field(description="fingerprint of the data")
    recipe: str
    config: dict[str, Any]
    base: str = Field(description="key of the pre-trained run")
    controls: dict[str, str] = Field(description="keys of the fine-tuned runs")
    others: tuple[Checkpoint, ...] = Field((), description="further checkpoints that were judged beside it")
    segmenter: str = Field("", description="key of the run that read what was drawn")
    cells: tuple[str, ...] = Field((), description="keys of the cells that it is made of")
    table: str = Field(description="SHA-256 of table.parquet")
    evaluations: int = Field(description="network evaluations")

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All that were judged."""
        return Checkpoint(base=self.base, controls=self.controls), *self.others


@dataclass(frozen=True)
class EvaluationRun:
    """A finished sweep: where it lies, its tidy table, and whether it was there before."""

    key: str
    fingerprint: str
    table: pd.DataFrame
    unchanged: bool = False

    @cached_property
    def shown(self) -> pd.DataFrame:
        """The table with methods told apart by their checkpoint; see `evaluation.table.beside`."""
        return beside(self.table)

    @cached_property
    def aggregated(self) -> pd.DataFrame:
        """Means and intervals by patient of what is shown; see `evaluation.table.aggregate`."""
        return aggregate(self.shown)


def checkpoint_of(lake: Lake, keys: Sequence[str]) -> Checkpoint:
    """The checkpoint of a pre-trained run and of runs that were fine-tuned from it, by their keys or urls in the lake.

    Raises:
        UserError: a run is not finished, the first is no pre-training, or another was not fine-tuned from it.
    """
    base, *rest = (key.removeprefix(f"{lake.url}/").strip("/") for key in keys)
    if (stage := read_run(lake, base).stage) != "pretrain":
        raise UserError(f"{base} is a {stage} run: name the pre-trained run first, then those fine-tuned from it")
    controls = {}
    for key in rest:
        seal = read_run(lake, key)
        if seal.base != base:
            raise UserError(f"{key} was not fine-tuned from {base} but from {seal.base or 'nothing'}; leave it out")
        controls[str(seal.config["task"])] = key
    return Checkpoint(base=base, controls=controls)


def read_seal(lake: Lake, key: str) -> SweepSeal:
    """The seal of a finished sweep.

    Raises:
        UserError: the sweep is not finished, its seal is damaged, or it is of a newer format.
    """
    again = "evaluate again"
    return read_seal_as(SweepSeal, lake, key, kind="sweep", if_missing=again, if_damaged=again)


def finished_sweep(lake: Lake, key: str) -> EvaluationRun | None:
    """A sweep that is finished already, marked unchanged; None where it is not."""
    if not run_exists(lake, key):
        return None
    seal = read_seal(lake, key)
    return EvaluationRun(key, seal.run, from_parquet(lake.read(f"{key}/table.parquet")), unchanged=True)
