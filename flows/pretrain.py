"""Pretrain: the diffusion model on the lake's newest manifest, told to MLflow as it goes."""

import logging
from collections.abc import Callable, Mapping

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import publish_note, stage_progress
from flows.params import PretrainChoice, StageParams, resolve_pretrain
from infra.lake import Lake, open_lake
from infra.settings import load_settings
from infra.tracking import MODEL, DataVersion, tracked_run
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from training.config import FinetuneConfig, PretrainConfig, TrainedConfig
from training.runs import OnLog, OnPicture, TrainedRun, base_of, finished_run, pretrain_key

logger = logging.getLogger(__name__)
NEWEST = "newest"  # the alias of the checkpoint that was trained last


class PretrainParams(StageParams):
    """One pre-training run on the newest manifest of a lake and recipe."""

    config: PretrainChoice = Field(
        "tiny", description="tiny: two CPU cores in minutes; paper, paper-24gb, …: a GPU; or a full config"
    )
    start_from: str = Field(
        "", description="key of a run whose steps this one goes on from; scratch = leave one that stopped on other data"
    )


DEFAULTS = PretrainParams()


def data_version(lake: Lake, recipe: Recipe, fingerprint: str) -> DataVersion:
    """The manifest as MLflow's dataset input."""
    return DataVersion(name=f"ct-{recipe.name}", fingerprint=fingerprint, url=lake.url)


def track_training(
    stage: str,
    config: TrainedConfig,
    key: str,
    data: DataVersion,
    train: Callable[[OnLog, OnPicture], TrainedRun],
    card: Callable[[TrainedRun], str],
) -> TrainedRun:
    """Runs a training with its curve in MLflow and in Prefect, and registers the checkpoint as a model."""
    report = stage_progress(stage, "iterations")
    url = f"{data.url}/{key}"
    fingerprint = key.rpartition("/")[2]
    steps = config.train.iterations
    experiment, name = stage.partition(" ")[0], f"{stage} {config.preset}"
    with tracked_run(experiment, name, params=config, tags={"url": url}, dataset=data, fingerprint=fingerprint) as run:

        def on_log(step: int, values: Mapping[str, float]) -> None:
            run.log_metrics(values, step)
            report(step, steps, f"loss {values['loss']:.3f}" if "loss" in values else "")

        report(0, steps, "reading cases")
        trained = train(on_log, lambda step, png: run.log_file(png, f"samples/step-{step:08d}.png"))
        model = _model_name(config)
        run.log_file(card(trained), "model_card.md")
        run.log_model(url, name=model, params=config, step=steps, alias=NEWEST)
    publish_note(stage, f"{stage} ({config.preset}): checkpoint `{url}`, data `{data.fingerprint}`")
    return trained


def _model_name(config: TrainedConfig) -> str:
    if isinstance(config, PretrainConfig):
        return MODEL
    return f"{MODEL}-{config.task if isinstance(config, FinetuneConfig) else 'segmenter'}"


def keep_card(lake: Lake, run: TrainedRun, config: TrainedConfig, manifest: Manifest, base: str = "") -> str:
    """The model card of a finished run, written beside its seal unless it is there."""
    from training.model_card import card_key, model_card

    key = card_key(run.key)
    if not lake.exists(key):
        lake.write(key, model_card(run, config, manifest, base).encode())
    return lake.read(key).decode()


@task(name="pretrain", cache_policy=NO_CACHE)
def pretrain_model(lake_url: str, recipe: Recipe, config: PretrainConfig, start_from: str = "") -> TrainedRun:
    """The pre-trained model of the newest manifest; trained only if that run is not in the lake yet."""
    lake = open_lake(lake_url or load_settings().lake_url)
    manifest = read_manifest(lake, recipe)
    base = base_of(start_from)
    key = pretrain_key(manifest.fingerprint, config, base)
    if done := finished_run(lake, key):
        logger.info("pretrain is unchanged: %s", key)
        keep_card(lake, done, config, manifest, base)
        return done
    from training.launch import pretrain as launch

    return track_training(
        "pretrain",
        config,
        key,
        data_version(lake, recipe, manifest.fingerprint),
        lambda on_log, on_picture: launch(lake, recipe, config, start_from, on_log=on_log, on_picture=on_picture),
        lambda run: keep_card(lake, run, config, manifest, base),
    )


@flow(name="pretrain")
def pretrain(params: PretrainParams = DEFAULTS) -> str:
    """Pre-train on the newest manifest; the key of the run in the lake."""
    return pretrain_model(params.lake, params.full_recipe, resolve_pretrain(params.config), params.start_from).key
