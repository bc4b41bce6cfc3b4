"""Finetune: one ControlNet on a pre-trained model, told to MLflow as it goes."""

import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.params import (
    FinetuneChoice,
    FinetunePreset,
    PretrainChoice,
    StageParams,
    resolve_finetune,
    resolve_pretrain,
)
from flows.pretrain import data_version, keep_card, pretrain_model, track_training
from infra.lake import open_lake
from infra.settings import load_settings
from preprocessing.manifest import read_manifest
from preprocessing.recipe import Recipe
from training.config import FinetuneConfig
from training.runs import TrainedRun, finetune_key, finished_run

logger = logging.getLogger(__name__)


class FinetuneParams(StageParams):
    """One fine-tuning run; the base model is pre-trained first where that was not done."""

    config: FinetuneChoice = Field(FinetunePreset(), description="a task with a preset's name, or a full config")
    base: PretrainChoice = Field("tiny", description="the pre-training run to start from, on the same data")


DEFAULTS = FinetuneParams()


@task(name="finetune", task_run_name="finetune {config.task}", cache_policy=NO_CACHE)
def finetune_model(lake_url: str, recipe: Recipe, config: FinetuneConfig, base: TrainedRun) -> TrainedRun:
    """The ControlNet of one task; trained only if that run is not in the lake yet."""
    lake = open_lake(lake_url or load_settings().lake_url)
    manifest = read_manifest(lake, recipe)
    key = finetune_key(manifest.fingerprint, config, base.key)
    if done := finished_run(lake, key):
        logger.info("finetune %s is unchanged: %s", config.task, key)
        keep_card(lake, done, config, manifest, base.key)
        return done
    from training.launch import finetune as launch

    return track_training(
        f"finetune {config.task}",
        config,
        key,
        data_version(lake, recipe, manifest.fingerprint),
        lambda on_log, on_picture: launch(lake, recipe, config, base, on_log=on_log, on_picture=on_picture),
        lambda run: keep_card(lake, run, config, manifest, base.key),
    )


@flow(name="finetune")
def finetune(params: FinetuneParams = DEFAULTS) -> str:
    """Fine-tune one task on the pre-trained model; the key of the run in the lake."""
    base = pretrain_model(params.lake, params.full_recipe, resolve_pretrain(params.base))
    return finetune_model(params.lake, params.full_recipe, resolve_finetune(params.config), base).key
