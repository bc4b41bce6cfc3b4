"""Runs in the lake, without torch: their fingerprints and keys, whether they are finished, and what they gave.

A run lies under `runs/<stage>/<fingerprint>/`. The fingerprint is over the manifest's fingerprint, the config and the
base run's key; so the same data and config are the same run. `seal.json` is written last: a run without it is
unfinished.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from infra.config import Config
from infra.errors import UserError
from infra.fingerprint import fingerprint
from infra.lake import Lake
from preprocessing.case import RegionName
from preprocessing.geometry import Triple
from training.config import (
    WITHOUT_EFFECT,
    FinetuneConfig,
    ModelConfig,
    PretrainConfig,
    SegmenterConfig,
    TrainedConfig,
)

FORMAT = 1
VERSION = 3  # raised whenever the code would train other weights from the same data and config
Stage = Literal["pretrain", "finetune", "segmenter"]
PACE = {"batch_size", "accumulate", "ranks", "activations", "compile", "precision"}  # of a TrainConfig
SCRATCH = "scratch"  # says of a new run that no other is to be gone on from
SealModel = TypeVar("SealModel", bound=Config)
OnLog = Callable[[int, Mapping[str, float]], None]
"""Called with a step and its numbers."""
OnPicture = Callable[[int, bytes], None]
"""Called with a step and a picture of it, PNG."""


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


class SeenRegion(Config):
    """What the training cases of one region were like; lengths in mm, z, y, x."""

    cases: int
    smallest_mm: Triple
    largest_mm: Triple
    thickest_slices_mm: float


class RunSeal(Config):
    """`seal.json`: what a finished run is and which checkpoint holds its weights."""

    format: int = FORMAT
    stage: Stage
    run: str = Field(description="fingerprint of the run")
    manifest: str = Field(description="fingerprint of the data")
    config: dict[str, Any]
    model: ModelConfig | None = Field(None, description="of a diffusion network")
    base: str = Field("", description="key of the run that this one started from")
    step: int
    checkpoint: str = Field(description="key of the final checkpoint")
    sha256: str
    metrics: dict[str, float]
    history: tuple[dict[str, float], ...]
    recipe: dict[str, Any] = Field(default_factory=dict, description="of the data, in full")
    seen: dict[RegionName, SeenRegion] = Field(default_factory=dict, description="what the training cases were like")


class RunStart(Config):
    """`start.json`: what a run begins with; written before its first step."""

    format: int = FORMAT
    key: str = Field(description="key of the run")
    manifest: str = Field(description="fingerprint of the data")
    config: dict[str, Any] = Field(description="what of the config decides the weights")
    base: str = Field("", description="key of the run that this one started from")


def pretrain_key(manifest_fingerprint: str, config: PretrainConfig, base_key: str = "") -> str:
    """Where the pre-training run of this data and config lies; `base_key` is the run whose steps it goes on from."""
    return f"runs/pretrain/{_fingerprint('pretrain', manifest_fingerprint, config, base_key)}"


def base_of(start_from: str) -> str:
    """The key of the run that a pre-training goes on from; "" where it begins anew."""
    return "" if start_from == SCRATCH else start_from


def finetune_key(manifest_fingerprint: str, config: FinetuneConfig, base_key: str) -> str:
    """Where the fine-tuning run of this data, config and base run lies."""
    return f"runs/finetune/{_fingerprint('finetune', manifest_fingerprint, config, base_key)}"


def segmenter_key(manifest_fingerprint: str, config: SegmenterConfig) -> str:
    """Where the segmenter of this data and config lies."""
    return f"runs/segmenter/{_fingerprint('segmenter', manifest_fingerprint, config, '')}"


def _fingerprint(stage: Stage, manifest: str, config: TrainedConfig, base: str) -> str:
    values = {"stage": stage, "version": VERSION, "manifest": manifest, "base": base}
    return fingerprint(values | {"config": what_matters(config)})


def what_matters(config: TrainedConfig) -> dict[str, Any]:
    """The values of a config that decide the weights."""
    return config.model_dump(mode="json", exclude={"train": WITHOUT_EFFECT})


def pace_of_steps(config: TrainedConfig, model: ModelConfig | None) -> str:
    """Under what is noted how long a step takes; a segmenter has no `model`."""
    if isinstance(config, SegmenterConfig):
        network = config.model_dump(mode="json", include={"patch", "channels", "classes"})
        return fingerprint(["segmenter", network, config.train.model_dump(mode="json", include=PACE)])
    assert model is not None
    task = "pretrain" if isinstance(config, PretrainConfig) else f"{config.task} {config.from_scratch}"
    train = config.train.model_dump(mode="json", include=PACE)
    return fingerprint([task, model.model_dump(mode="json"), train])


def start_key(key: str) -> str:
    """The key of what is noted when a run begins."""
    return f"{key}/start.json"


def note_start(lake: Lake, start: RunStart) -> None:
    """Writes what a run begins with, unless that was done; either way the run is in use from now on, and its base."""
    for key in (seal_key(start.base), start_key(start.base)) if start.base else ():
        with suppress(FileNotFoundError):
            lake.touch(key)
    try:
        lake.touch(start_key(start.key))
    except FileNotFoundError:
        lake.write(start_key(start.key), start.model_dump_json(indent=1).encode())


def unfinished_on_other_data(lake: Lake, manifest_fingerprint: str, config: PretrainConfig) -> list[RunStart]:
    """Unfinished pre-training runs of this config that were begun on another version of the data."""
    keys = set(lake.list("runs/pretrain"))
    noted = sorted(key.removesuffix(start_key("")) for key in keys if key.endswith(start_key("")))
    unfinished = [run for run in noted if seal_key(run) not in keys]
    starts = [RunStart.model_validate_json(lake.read(start_key(run))) for run in unfinished]
    wanted = what_matters(config)
    return [start for start in starts if start.config == wanted and start.manifest != manifest_fingerprint]


def seal_key(key: str) -> str:
    """The key of a run's seal."""
    return f"{key}/seal.json"


def run_exists(lake: Lake, key: str) -> bool:
    """Whether a run of any stage is finished."""
    return lake.exists(seal_key(key))


def take_run(lake: Lake, key: str) -> bool:
    """Whether a run of any stage is finished; if so it is in use from now on, and `meddiff gc` leaves it."""
    try:
        lake.touch(seal_key(key))
    except FileNotFoundError:
        return False
    return True


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
