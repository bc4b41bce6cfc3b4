"""Models by the names that people use: MLflow's registry, a run's folder or url, or its key in the lake.

`models:/meddiff-fm@champion`, `models:/meddiff-fm/3`, `/data/lake/runs/pretrain/<fingerprint>`,
`s3://bucket/lake/runs/…`, `runs/pretrain/<fingerprint>`.
"""

import logging
import re
from dataclasses import dataclass

from torch import nn

from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.settings import Settings, load_settings
from infra.tracking import MODEL, registered_url
from preprocessing.recipe import Recipe
from training.config import FinetuneConfig, ModelConfig
from training.loading import load_network
from training.precision import Precision, default_device, place
from training.runs import RunSeal, read_run

logger = logging.getLogger(__name__)
REGISTERED = re.compile(r"models:/(?P<name>[^@/]+)(@(?P<alias>.+)|/(?P<number>\d+))")
DEFAULTS = ("champion", "newest")  # aliases, in the order in which they are looked for
MAKE_ONE = "`meddiff run --profile demo` makes a small one, `meddiff pretrain` and `meddiff finetune` real ones"


@dataclass(frozen=True)
class Model:
    """A network of a finished run, placed on this machine's device, with all that its seal says."""

    network: nn.Module
    config: ModelConfig
    seal: RunSeal
    recipe: Recipe
    url: str

    @property
    def is_demonstration(self) -> bool:
        """Whether it is too small, or trained on too little, to be used for anything but trying the commands."""
        return self.seal.config.get("preset") == "tiny"

    @property
    def factor(self) -> int:
        """A super-resolution network's factor along z."""
        return FinetuneConfig.model_validate(self.seal.config).factor


def open_model(
    reference: str = "", *, task: str = "", precision: Precision = "bf16", settings: Settings | None = None
) -> Model:
    """The model of a name; without one the registered champion, else the newest one.

    Args:
        task: "" for a pre-trained model, else the fine-tuning task (superresolution, lesion) that it must be of.

    Raises:
        UserError: there is no such model, it is of another kind, or it does not say on what data it was trained.
    """
    settings = settings or load_settings()
    lake, key = find_run(reference, task, settings)
    seal = read_run(lake, key)
    found = str(seal.config.get("task", "")) if seal.stage == "finetune" else ""
    if found != task:
        wanted, is_ = (f"a model fine-tuned for {kind}" if kind else "a pre-trained model" for kind in (task, found))
        raise UserError(f"{lake.url_of(key)} is {is_}; this needs {wanted}: name one with --model")
    if not seal.recipe:
        where = lake.url_of(key)
        raise UserError(f"{where} does not say how its data were stored (an older meddiff): remove it, train again")
    network, config, _ = load_network(lake, key)
    placed = place(network, default_device(), precision)
    return Model(placed, config, seal, Recipe.model_validate(seal.recipe), lake.url_of(key))


def find_run(reference: str, task: str, settings: Settings) -> tuple[Lake, str]:
    """Lake and key of the run that a name means.

    Raises:
        UserError: there is none.
    """
    name = f"{MODEL}-{task}" if task else MODEL
    url = reference
    if not reference:
        urls = (registered_url(name, alias=alias, settings=settings) for alias in DEFAULTS)
        url = next(filter(None, urls), "")
        if not url:
            raise UserError(f"no model {name} is registered in MLflow at {settings.mlflow_uri}: {MAKE_ONE}")
    elif match := REGISTERED.fullmatch(reference):
        url = registered_url(match["name"], alias=match["alias"] or "", number=match["number"] or "", settings=settings)
        if not url:
            raise UserError(f"MLflow at {settings.mlflow_uri} has no {reference}: {MAKE_ONE}")
    place, marker, rest = url.rstrip("/").rpartition("runs/")
    if not marker:
        raise UserError(f"{reference!r} is no model: give models:/NAME@ALIAS, or the folder or key of a run (runs/…)")
    return open_lake(place or settings.lake_url, create=False, settings=settings), f"runs/{rest}"
