"""Runs in the lake, without torch: their fingerprints and keys, whether they are finished, and what they gave.

A run lies under `runs/<stage>/<fingerprint>/`. The fingerprint is over the manifest's fingerprint, the config and the
base run's key; so the same data and config are the same run. `seal.json` is written last: a run without it is
unfinished.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from infra.config import Config
from infra.errors import UserError
from infra.fingerprint import fingerprint
from infra.lake import Lake
from training.config import FinetuneConfig, ModelConfig, PretrainConfig

FORMAT = 1
VERSION = 2  # raised whenever the code would train other weights from the same data and config
Stage = Literal["pretrain", "finetune"]
SealModel = TypeVar("SealModel", bound=Config)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: where it lies, its final metrics, and its curve (one dict per logged step).

    `unchanged` means that it was finished before and nothing was trained now.
    """

    stage: str
    fingerprint: str
    key: str
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()
    unchanged: bool = False


class RunSeal(Config):
    """`seal.json`: what a finished run is and which checkpoint holds its weights."""

    format: int = FORMAT
    stage: Stage
    run: str = Field(description="fingerprint of the run")
    manifest: str = Field(description="fingerprint of the data")
    config: dict[str, Any]
    model: ModelConfig
    base: str = Field("", description="key of the run that a fine-tuning started from")
    step: int
    checkpoint: str = Field(description="key of the final checkpoint")
    sha256: str
    metrics: dict[str, float]
    history: tuple[dict[str, float], ...]


def pretrain_key(manifest_fingerprint: str, config: PretrainConfig) -> str:
    """Where the pre-training run of this data and config lies."""
    return f"runs/pretrain/{_fingerprint('pretrain', manifest_fingerprint, config, '')}"


def finetune_key(manifest_fingerprint: str, config: FinetuneConfig, base_key: str) -> str:
    """Where the fine-tuning run of this data, config and base run lies."""
    return f"runs/finetune/{_fingerprint('finetune', manifest_fingerprint, config, base_key)}"


def _fingerprint(stage: Stage, manifest: str, config: PretrainConfig | FinetuneConfig, base: str) -> str:
    values = {"stage": stage, "version": VERSION, "manifest": manifest, "base": base}
    return fingerprint(values | {"config": config.model_dump(mode="json")})


def seal_key(key: str) -> str:
    """The key of a run's seal."""
    return f"{key}/seal.json"


def run_exists(lake: Lake, key: str) -> bool:
    """Whether a run of any stage is finished."""
    return lake.exists(seal_key(key))


def read_run(lake: Lake, key: str) -> RunSeal:
    """The seal of a finished run.

    Raises:
        UserError: the run is not finished, unreadable, or of a newer format.
    """
    return read_seal_as(RunSeal, lake, key, kind="run", if_missing="run its stage again", if_damaged="run again")


def read_seal_as(
    model: type[SealModel], lake: Lake, key: str, *, kind: str, if_missing: str, if_damaged: str
) -> SealModel:
    """The seal of anything under `runs/`, as a model; `kind` and the two remedies go into the error's sentence.

    Raises:
        UserError: there is no seal, it cannot be read, or it is of a newer format.
    """
    place = lake.url_of(key)
    try:
        values = json.loads(lake.read(seal_key(key)))
        if values["format"] > FORMAT:
            raise UserError(f"{place} is a {kind} of format {values['format']}; this meddiff reads up to {FORMAT}")
        return model.model_validate(values)
    except FileNotFoundError:
        raise UserError(f"{place} is no finished {kind}: it has no seal; {if_missing}") from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"the seal of {place} cannot be read ({error}); remove it and {if_damaged}") from None


def finished_run(lake: Lake, key: str) -> TrainedRun | None:
    """A run that is finished already, marked unchanged; None where it is not."""
    if not run_exists(lake, key):
        return None
    seal = read_run(lake, key)
    return TrainedRun(
        stage=seal.stage,
        fingerprint=seal.run,
        key=key,
        metrics=seal.metrics,
        history=seal.history,
        unchanged=True,
    )
