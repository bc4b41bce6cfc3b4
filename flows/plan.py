"""Plan: what a run of a profile would do and why, decided only from seals, manifests and runs in the lake.

No Prefect, no torch: it takes seconds, whatever the size of the lake, because only listings and small tables are read.
"""

from collections.abc import Sequence
from typing import Literal

from evaluation.cells import cell_keys, cells_in, cells_of
from evaluation.champion import promotion_key, side_by_side
from evaluation.config import Checkpoint, EvaluateConfig, evaluate_key, used_segmenter
from flows.cost import FREE, Cost, cells_cost, ingest_cost, training_cost
from flows.profiles import Profile
from infra.config import Config
from infra.lake import Lake
from infra.settings import load_settings
from preprocessing.case import Case
from preprocessing.manifest import IDENTITY, PLANNED, Manifest, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.selection import EVERYTHING, Selection, selected
from preprocessing.sources.base import Source
from training.config import ModelConfig, TrainedConfig
from training.runs import finetune_key, pretrain_key, run_exists, seal_key, segmenter_key


class StageStatus(Config):
    """What would become of one stage; `key` is its result's place in the lake, "" where that is not known yet.

    `cases` is how many an ingest lists, `pending` how many of them it would read, None where nobody can tell yet.
    `cost` is what the work would take.
    """

    stage: str
    status: Literal["unchanged", "would run"]
    why: str
    key: str = ""
    cases: int = 0
    pending: int | None = 0
    cost: Cost = FREE

    @property
    def unchanged(self) -> bool:
        """Whether nothing would be done."""
        return self.status == "unchanged"


def plan(lake: Lake | None, profile: Profile) -> list[StageStatus]:
    """One status per stage, in the order of the pipeline; no lake = nothing is there yet.

    Raises:
        UserError: a source cannot be listed or the lake cannot be read.
    """
    sources = [spec.make() for spec in profile.sources]
    manifest = read_manifest(lake, profile.full_recipe, columns=(*IDENTITY, *PLANNED, "regions")) if lake else None
    if lake is None or manifest is None or not manifest.number:
        first = [_priced(_first_time(lake, one), lake, profile.full_recipe, one) for one in sources]
        return [*first, *_unknown(lake, profile, "there is no data yet")]
    found = [ingest_status(lake, manifest, source) for source in sources]
    first = [_priced(stage, lake, profile.full_recipe, one) for stage, one in zip(found, sources, strict=True)]
    if not all(stage.unchanged for stage in first):
        return [*first, *_unknown(lake, profile, "the data may change")]
    return [*first, *_models(lake, manifest, profile)]


def _priced(stage: StageStatus, lake: Lake | None, recipe: Recipe, source: Source) -> StageStatus:
    """An ingest with its cost."""
    if stage.unchanged:
        return stage
    return stage.replace(cost=ingest_cost(lake, recipe, source.info, stage.pending))


def _first_time(lake: Lake | None, source: Source) -> StageStatus:
    stage, info = f"ingest {source.info.name}", source.info
    if not source.is_listed(lake):
        why = f"not pulled yet ({info.cases or 'unknown number of'} cases, {info.size or 'size unknown'})"
        return _would_run(stage, why).replace(pending=info.cases)
    cases = source.cases(lake)
    return _would_run(stage, f"{len(cases)} new cases").replace(pending=_to_read(cases))


def _to_read(cases: Sequence[Case]) -> int:
    return sum(not case.problem for case in cases)


def ingest_status(lake: Lake, manifest: Manifest, source: Source, selection: Selection = EVERYTHING) -> StageStatus:
    """Compares what a source lists with the manifest's rows of it, by version token.

    Raises:
        UserError: the source cannot be listed, a case that is asked for is not, or the lake was filled under another
            key than its names' hashes.
    """
    from preprocessing.backfill import asked_for
    from preprocessing.changes import find_changes, known_cases, without_namesakes
    from preprocessing.identity import prepared

    source = prepared(source, lake, load_settings())
    stage = f"ingest {source.info.name}"
    if not source.is_listed(lake):
        return _first_time(lake, source)
    selection.require(source.info, lake)
    known = known_cases(manifest, source)
    cases = selected(without_namesakes(source.cases(lake)), known, selection, lake)
    if found := asked_for(find_changes(known, cases, source), selection, manifest, source, lake):
        changed = len(found.changed) + len(found.renoted)
        counts = f"{len(found.new)} new, {changed} changed, {len(found.withdrawn)} no longer listed"
        counts += f", {len(found.again)} once again" if found.again else ""
        return _would_run(stage, counts).replace(cases=len(cases), pending=_to_read(found.pending))
    why = f"{len(cases)} cases as in manifest {manifest.number}"
    return StageStatus(stage=stage, status="unchanged", why=why, cases=len(cases))


def _models(lake: Lake, manifest: Manifest, profile: Profile) -> list[StageStatus]:
    base = pretrain_key(manifest.fingerprint, profile.pretrain_config)
    model = profile.pretrain_config.model
    stages = [_trained(lake, "pretrain", base, profile.pretrain_config, model)]
    controls: dict[str, str] = {}
    for config in profile.finetune_configs:
        controls[config.task] = finetune_key(manifest.fingerprint, config, base)
        stages.append(_trained(lake, f"finetune {config.task}", controls[config.task], config, model))
    sweep_config = profile.evaluate_config
    if segmenter := used_segmenter(sweep_config):
        key = segmenter_key(manifest.fingerprint, segmenter)
        stages.append(_trained(lake, "segmenter", key, segmenter, None))
    judged = side_by_side(lake, Checkpoint(base=base, controls=controls))
    sweep = _sweep_status(lake, manifest, sweep_config, judged, model)
    return [*stages, sweep, _run_status(lake, "promote", promotion_key(sweep.key, profile.promotion))]


def _sweep_status(
    lake: Lake, manifest: Manifest, config: EvaluateConfig, checkpoints: tuple[Checkpoint, ...], model: ModelConfig
) -> StageStatus:
    status = _run_status(lake, "evaluate", evaluate_key(manifest.fingerprint, config, checkpoints))
    if status.unchanged:
        return status
    cells = cells_of(config, checkpoints, manifest)
    measured = set(lake.list("runs/cells"))
    keys = cell_keys(cells, config, manifest)
    missing = [cell for cell, key in zip(cells, keys, strict=True) if seal_key(key) not in measured]
    why = f"{len(missing)} of {len(cells)} cells are not measured for this data and config"
    return status.replace(why=why, cost=cells_cost(lake, missing, config, model))


def _trained(lake: Lake, stage: str, key: str, config: TrainedConfig, model: ModelConfig | None) -> StageStatus:
    status = _run_status(lake, stage, key)
    return status if status.unchanged else status.replace(cost=training_cost(lake, config, model))


def _run_status(lake: Lake, stage: str, key: str) -> StageStatus:
    if run_exists(lake, key):
        return StageStatus(stage=stage, status="unchanged", why="sealed for this data and config", key=key)
    return StageStatus(stage=stage, status="would run", why="no run of this data and config", key=key)


def _unknown(lake: Lake | None, profile: Profile, why: str) -> list[StageStatus]:
    """The stages after the data, priced as if it showed every region."""
    model, sweep = profile.pretrain_config.model, profile.evaluate_config
    trained: dict[str, TrainedConfig] = {"pretrain": profile.pretrain_config}
    trained |= {f"finetune {one.task}": one for one in profile.finetune_configs}
    if segmenter := used_segmenter(sweep):
        trained["segmenter"] = segmenter
    costs = {stage: training_cost(lake, config, model) for stage, config in trained.items()}
    costs["evaluate"] = cells_cost(lake, cells_in(sweep, [Checkpoint(base="")], sweep.regions), sweep, model)
    return [_would_run(stage, why).replace(cost=cost) for stage, cost in {**costs, "promote": FREE}.items()]


def _would_run(stage: str, why: str) -> StageStatus:
    return StageStatus(stage=stage, status="would run", why=why)
