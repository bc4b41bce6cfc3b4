"""Segmenter: the network that reads what a sweep draws, trained on real cases and told to MLflow as it goes."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from evaluation.config import EvaluateConfig, used_segmenter
from flows.pretrain import data_version, keep_card, track_training
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import load_settings
from preprocessing.manifest import read_manifest
from preprocessing.recipe import Recipe
from training.config import SegmenterConfig
from training.runs import TrainedRun, finished_run, segmenter_key

logger = logging.getLogger(__name__)


@task(name="segmenter", cache_policy=NO_CACHE)
def segmenter_model(lake_url: str, recipe: Recipe, config: SegmenterConfig) -> TrainedRun:
    """The segmenter of the newest manifest; trained only if that run is not in the lake yet."""
    lake = open_lake(lake_url or load_settings().lake_url)
    manifest = read_manifest(lake, recipe)
    key = segmenter_key(manifest.fingerprint, config)
    if done := finished_run(lake, key):
        logger.info("segmenter is unchanged: %s", key)
        keep_card(lake, done, config, manifest)
        return done
    from training.launch import train_segmenter as launch

    return track_training(
        "segmenter",
        config,
        key,
        data_version(lake, recipe, manifest.fingerprint),
        lambda on_log, on_picture: launch(lake, recipe, config, on_log=on_log, on_picture=on_picture),
        lambda run: keep_card(lake, run, config, manifest),
    )


def prepare_segmenter(lake_url: str, recipe: Recipe, config: EvaluateConfig) -> None:
    """The segmenter of a sweep, where it has one; a sweep that cannot have it says so in its rows and goes on."""
    segmenter = used_segmenter(config)
    if segmenter is None:
        return
    try:
        segmenter_model(lake_url, recipe, segmenter)
    except UserError as error:
        logger.warning("the sweep has no segmenter: %s", error)
