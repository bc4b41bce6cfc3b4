"""Evaluate: the sweep of tasks on held-out cases, its table and its report."""

import logging
from collections.abc import Mapping, Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from evaluation.champion import side_by_side
from evaluation.config import Checkpoint, EvaluateConfig, evaluate_key
from evaluation.results import EvaluationRun, finished_sweep
from flows.artifacts import publish_note, stage_progress
from flows.finetune import finetune_model
from flows.params import (
    EvaluateChoice,
    FinetuneChoice,
    FinetunePreset,
    PretrainChoice,
    StageParams,
    resolve_evaluate,
    resolve_finetune,
    resolve_pretrain,
)
from flows.pretrain import pretrain_model
from flows.segmenter import prepare_segmenter
from infra.lake import open_lake
from infra.settings import load_settings
from preprocessing.manifest import read_manifest
from preprocessing.recipe import Recipe
from training.runs import TrainedRun

logger = logging.getLogger(__name__)


class EvaluateParams(StageParams):
    """One sweep; the models it needs are trained first where that was not done."""

    config: EvaluateChoice = Field("tiny", description="a preset's name or a full config")
    base: PretrainChoice = Field("tiny", description="the pre-training run to judge")
    controls: tuple[FinetuneChoice, ...] = Field(
        (FinetunePreset(task="superresolution"), FinetunePreset(task="lesion")),
        description="the fine-tuned models of the tasks that need one",
    )
    others: tuple[Checkpoint, ...] = Field((), description="trained runs in the lake to be judged beside these")


DEFAULTS = EvaluateParams()


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate_models(
    lake_url: str,
    recipe: Recipe,
    config: EvaluateConfig,
    base: TrainedRun,
    controls: Mapping[str, TrainedRun],
    others: Sequence[Checkpoint] = (),
) -> EvaluationRun:
    """The sweep of a base model with its ControlNets, beside others; measured only if it is not in the lake yet."""
    lake = open_lake(lake_url or load_settings().lake_url)
    judged = Checkpoint(base=base.key, controls={name: run.key for name, run in controls.items()})
    checkpoints = side_by_side(lake, judged, others)
    key = evaluate_key(read_manifest(lake, recipe).fingerprint, config, checkpoints)
    if done := finished_sweep(lake, key):
        logger.info("evaluate is unchanged: %s", key)
        return done
    from evaluation.sweep import evaluate as launch

    report = stage_progress("evaluate", "cells")
    run = launch(lake, recipe, config, checkpoints, on_log=report)
    publish_note("evaluate", f"report `{lake.url_of(run.key)}/report.html`, {len(run.table)} measurements")
    return run


@flow(name="evaluate")
def evaluate(params: EvaluateParams = DEFAULTS) -> str:
    """Judge the models on the held-out cases; the key of the sweep in the lake."""
    recipe = params.full_recipe
    base = pretrain_model(params.lake, recipe, resolve_pretrain(params.base))
    configs = [resolve_finetune(choice) for choice in params.controls]
    controls: dict[str, TrainedRun] = {
        config.task: finetune_model(params.lake, recipe, config, base) for config in configs
    }
    config = resolve_evaluate(params.config)
    prepare_segmenter(params.lake, recipe, config)
    return evaluate_models(params.lake, recipe, config, base, controls, params.others).key
