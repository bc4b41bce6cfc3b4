"""Promote: the checkpoint of a sweep becomes the champion where it is better beyond noise."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from evaluation.champion import Decision, promote_candidate
from evaluation.promotion import PromotionConfig
from evaluation.results import EvaluationRun, finished_sweep
from flows.artifacts import publish_note
from infra.lake import open_lake
from infra.settings import load_settings
from preprocessing.recipe import Recipe

logger = logging.getLogger(__name__)


@task(name="promote", cache_policy=NO_CACHE)
def promote_checkpoint(lake_url: str, recipe: Recipe, sweep: EvaluationRun, config: PromotionConfig) -> Decision | None:
    """Decides of a sweep's first checkpoint; None where the sweep is not finished, because a cell of it failed."""
    settings = load_settings()
    lake = open_lake(lake_url or settings.lake_url)
    if finished_sweep(lake, sweep.key) is None:
        logger.warning("nobody is promoted: the sweep %s is not finished", sweep.key)
        return None
    decision = promote_candidate(lake, recipe, sweep.key, config, settings)
    publish_note("promote", decision.said)
    logger.info("%s", decision.said)
    return decision
