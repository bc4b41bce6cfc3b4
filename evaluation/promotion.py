"""Promotion: whether a checkpoint is better than the champion, from a table that has both, and why.

It is if a declared metric improves beyond noise and none gets worse beyond noise, over the same held-out patients of
the declared data sets. Intervals are widened for the number of rules (Bonferroni), so that more rules do not make
chance promotions likelier.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from evaluation.config import Checkpoint, TaskName
from evaluation.table import bootstrap
from evaluation.verdict import direction, number
from infra.config import Config

ALIKE = ("task", "dataset", "region", "setting", "method", "metric", "unit", "case", "patient", "seed")


class Rule(Config):
    """A metric that counts; empty parts stand for all."""

    task: TaskName
    metric: str
    method: str = "ours"
    region: str = ""
    setting: str = ""

    @property
    def name(self) -> str:
        """As the reason names it."""
        return " ".join(filter(None, (self.task, self.region, self.setting, self.metric, self.method)))


class PromotionConfig(Config):
    """What makes a champion."""

    rules: tuple[Rule, ...] = Field(
        (
            Rule(task="denoising", metric="psnr_gain", method="ours-mean"),
            Rule(task="synthesis", metric="organ_hu_error"),
            Rule(task="superresolution", metric="psnr"),
            Rule(task="lesion-generation", metric="contrast_error"),
            Rule(task="anomaly", metric="auroc_px_organ", method="ours-centred"),
        ),
        min_length=1,
        description="the metrics that count",
    )
    datasets: tuple[str, ...] = Field((), description="data sets that count; none named = all in the sweep")
    min_patients: int = Field(5, ge=2, description="patients that a rule needs to have a say")


class Evidence(NamedTuple):
    """How the candidate compares by one rule: its mean gain (positive = better) with an interval, over patients."""

    rule: str
    gain: float
    low: float
    high: float
    patients: int

    @property
    def said(self) -> str:
        """For people."""
        return f"{self.rule} {self.gain:+.3g} [{number(self.low)}, {number(self.high)}], {self.patients} patients"


def decide(
    table: pd.DataFrame, candidate: Checkpoint, champion: Checkpoint | None, config: PromotionConfig
) -> tuple[bool, str]:
    """Whether the candidate is to be champion, and the reason as a sentence.

    The champion's and the candidate's rows are told apart by the table's column `checkpoint`.
    """
    if config.datasets:
        table = table[table["dataset"].isin(config.datasets)]
    own = table[table["checkpoint"] == candidate.name]
    if champion is None:
        counted = [rule for rule in config.rules if _rows(own, rule)["value"].notna().any()]
        if not counted:
            return False, "none of the declared metrics was measured"
        return True, f"there was no champion; measured: {', '.join(rule.name for rule in counted)}"
    held = table[table["checkpoint"] == champion.name]
    found = [evidence_of(rule, _rows(held, rule), _rows(own, rule), len(config.rules)) for rule in config.rules]
    heard = [evidence for evidence in found if evidence.patients >= config.min_patients]
    if not heard:
        most = max((evidence.patients for evidence in found), default=0)
        return False, f"no declared metric has {config.min_patients} patients measured with both (at most {most})"
    return verdict(heard)


def verdict(heard: Sequence[Evidence]) -> tuple[bool, str]:
    """Better by at least one rule and worse by none."""
    better = [evidence for evidence in heard if evidence.low > 0]
    worse = [evidence for evidence in heard if evidence.high < 0]
    if worse:
        return False, f"worse beyond noise: {'; '.join(e.said for e in worse)}"
    if not better:
        return False, f"no difference beyond noise: {'; '.join(e.said for e in heard)}"
    return True, f"better beyond noise: {'; '.join(e.said for e in better)}; none worse of {len(heard)}"


def evidence_of(rule: Rule, held: pd.DataFrame, own: pd.DataFrame, rules: int) -> Evidence:
    """Paired by patient; a patient's gains over regions, settings, cases and seeds are averaged."""
    gains = gains_by_patient(held, own, direction(rule.metric))
    low, high = bootstrap(gains, level=1 - 0.05 / rules)
    return Evidence(rule.name, float(gains.mean()) if len(gains) else math.nan, low, high, len(gains))


def gains_by_patient(held: pd.DataFrame, own: pd.DataFrame, sign: int) -> NDArray[np.float64]:
    """One mean of sign·(own − held) per patient, over what both tables measured alike: place, unit, case and seed."""
    left, right = (table.loc[table["value"].notna(), [*ALIKE, "value"]] for table in (held, own))
    both = left.merge(right, on=list(ALIKE), suffixes=("_held", "_own"))
    gains = sign * (both["value_own"] - both["value_held"])
    return gains.groupby([both["dataset"], both["patient"]]).mean().to_numpy(np.float64)


def _rows(table: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    wanted = {"task": rule.task, "metric": rule.metric, "method": rule.method}
    wanted |= {name: value for name, value in (("region", rule.region), ("setting", rule.setting)) if value}
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table
