"""A sweep in the lake: its files, its seal, and reading it back without torch.

`runs/evaluate/<fingerprint>/` holds `table.parquet`, `pictures/*.png`, `report.html` and, written last, `seal.json`.
A sweep without a seal does not exist for a reader.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from evaluation.table import aggregate, from_parquet
from infra.config import Config
from infra.errors import UserError
from infra.lake import Lake

FORMAT = 1


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
    table: str = Field(description="SHA-256 of table.parquet")
    evaluations: int = Field(description="network evaluations")


@dataclass(frozen=True)
class EvaluationRun:
    """A finished sweep: where it lies, its tidy table, and whether it was there before."""

    key: str
    fingerprint: str
    table: pd.DataFrame
    unchanged: bool = False

    @cached_property
    def aggregated(self) -> pd.DataFrame:
        """Means and intervals by patient; see `evaluation.table.aggregate`."""
        return aggregate(self.table)


def seal_key(key: str) -> str:
    """The key of a sweep's seal."""
    return f"{key}/seal.json"


def read_seal(lake: Lake, key: str) -> SweepSeal:
    """The seal of a finished sweep.

    Raises:
        UserError: the sweep is not finished, its seal is damaged, or it is of a newer format.
    """
    try:
        values = json.loads(lake.read(seal_key(key)))
        if values["format"] > FORMAT:
            raise UserError(
                f"{lake.url_of(key)} is a sweep of format {values['format']}; this meddiff reads up to {FORMAT}"
            )
        return SweepSeal.model_validate(values)
    except FileNotFoundError:
        raise UserError(f"{lake.url_of(key)} is no finished sweep: it has no seal; evaluate again") from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(
            f"the seal of {lake.url_of(key)} cannot be read ({error}); remove it and evaluate again"
        ) from None


def finished_sweep(lake: Lake, key: str) -> EvaluationRun | None:
    """A sweep that is finished already, marked unchanged; None where it is not."""
    if not lake.exists(seal_key(key)):
        return None
    seal = read_seal(lake, key)
    return EvaluationRun(key, seal.run, from_parquet(lake.read(f"{key}/table.parquet")), unchanged=True)
