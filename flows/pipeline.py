"""Pipeline: the whole way from raw CT to the evaluation table, every stage only if what it reads changed."""

from prefect import flow

from flows.evaluate import evaluate_models
from flows.finetune import finetune_model
from flows.ingest import IngestParams, ingest_sources
from flows.pretrain import pretrain_model
from flows.profiles import Profile, demo, require_splits
from flows.promote import promote_checkpoint
from flows.segmenter import prepare_segmenter
from training.runs import SCRATCH, TrainedRun

DEFAULTS = demo()


@flow(name="pipeline")
def pipeline(params: Profile = DEFAULTS) -> str:
    """Ingest every source, pre-train if the manifest is new, fine-tune, evaluate, promote; the key of the sweep.

    The pipeline is always about the newest data: a pre-training that stopped on older data is left where it is.

    Raises:
        UserError: a region has too few patients for validation or test.
    """
    lake, recipe = params.lake, params.full_recipe
    manifest = ingest_sources(IngestParams(lake=lake, recipe=recipe, sources=params.sources)).manifest
    require_splits(manifest, params)
    base = pretrain_model(lake, recipe, params.pretrain_config, SCRATCH)
    controls: dict[str, TrainedRun] = {}
    for config in params.finetune_configs:
        controls[config.task] = finetune_model(lake, recipe, config, base)
    prepare_segmenter(lake, recipe, params.evaluate_config)
    sweep = evaluate_models(lake, recipe, params.evaluate_config, base, controls)
    promote_checkpoint(lake, recipe, sweep, params.promotion)
    return sweep.key
