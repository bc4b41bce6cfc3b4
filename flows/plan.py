"""Plan: what a run of a profile would do and why, decided only from seals, manifests and runs in the lake.

No Prefect, no torch: it takes seconds, whatever the size of the lake, because only listings and small tables are read.
"""

from typing import Literal

from evaluation.cells import cell_keys, cells_of
from evaluation.champion import promotion_key, side_by_side
from evaluation.config import Checkpoint, EvaluateConfig, evaluate_key, used_segmenter
from flows.profiles import Profile
from infra.config import Config
from infra.lake import Lake
from infra.settings import load_settings
from preprocessing.manifest import IDENTITY, PLANNED, Manifest, read_manifest
from preprocessing.selection import EVERYTHING, Selection, selected
from preprocessing.sources.base import Source
from training.runs import finetune_key, pretrain_key, run_exists, seal_key


class StageStatus(Config):
    """What would become of one stage; `key` is its result's place in the lake, "" where that is not known yet.

    `cases` is how many an ingest lists.
    """

    stage: str
    status: Literal["unchanged", "would run"]
    why: str
    key: str = ""
    cases: int = 0

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
        first = [_would_run(f"ingest {one.info.name}", _first_time(lake, one)) for one in sources]
        return [*first, *_unknown(profile, "there is no data yet")]
    first = [ingest_status(lake, manifest, source) for source in sources]
    if not all(stage.unchanged for stage in first):
        return [*first, *_unknown(profile, "the data may change")]
    return [*first, *_models(lake, manifest, profile)]


def _first_time(lake: Lake | None, source: Source) -> str:
    if not source.is_listed(lake):
        return (
            f"not pulled yet ({source.info.cases or 'unknown number of'} cases, {source.info.size or 'size unknown'})"
        )
    return f"{len(source.cases(lake))} new cases"


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
        return _would_run(stage, _first_time(lake, source))
    selection.require(source.info, lake)
    known = known_cases(manifest, source)
    cases = selected(without_namesakes(source.cases(lake)), known, selection, lake)
    if found := asked_for(find_changes(known, cases, source), selection, manifest, source, lake):
        changed = len(found.changed) + len(found.renoted)
        counts = f"{len(found.new)} new, {changed} changed, {len(found.withdrawn)} no longer listed"
        counts += f", {len(found.again)} once again" if found.again else ""
        return _would_run(stage, counts).replace(cases=len(cases))
    why = f"{len(cases)} cases as in manifest {manifest.number}"
    return StageStatus(stage=stage, status="unchanged", why=why, cases=len(cases))


def _models(lake: Lake, manifest: Manifest, profile: Profile) -> list[StageStatus]:
    base = pretrain_key(manifest.fingerprint, profile.pretrain_config)
    stages = [_run_status(lake, "pretrain", base)]
    controls: dict[str, str] = {}
    for config in profile.finetune_configs:
        controls[config.task] = finetune_key(manifest.fingerprint, config, base)
        stages.append(_run_status(lake, f"finetune {config.task}", controls[config.task]))
    config = profile.evaluate_config
    if key := used_segmenter(config, manifest.fingerprint):
        stages.append(_run_status(lake, "segmenter", key))
    judged = side_by_side(lake, Checkpoint(base=base, controls=controls))
    sweep = _sweep_status(lake, manifest, config, judged)
    return [*stages, sweep, _run_status(lake, "promote", promotion_key(sweep.key, profile.promotion))]


def _sweep_status(
    lake: Lake, manifest: Manifest, config: EvaluateConfig, checkpoints: tuple[Checkpoint, ...]
) -> StageStatus:
    status = _run_status(lake, "evaluate", evaluate_key(manifest.fingerprint, config, checkpoints))
    if status.unchanged:
        return status
    keys = list(cell_keys(cells_of(config, checkpoints, manifest), config, manifest))
    measured = set(lake.list("runs/cells"))
    missing = sum(seal_key(key) not in measured for key in keys)
    return status.replace(why=f"{missing} of {len(keys)} cells are not measured for this data and config")


def _run_status(lake: Lake, stage: str, key: str) -> StageStatus:
    if run_exists(lake, key):
        return StageStatus(stage=stage, status="unchanged", why="sealed for this data and config", key=key)
    return StageStatus(stage=stage, status="would run", why="no run of this data and config", key=key)


def _unknown(profile: Profile, why: str) -> list[StageStatus]:
    tasks = [f"finetune {config.task}" for config in profile.finetune_configs]
    tasks += ["segmenter"] if used_segmenter(profile.evaluate_config, "") else []
    return [_would_run(stage, why) for stage in ("pretrain", *tasks, "evaluate", "promote")]


def _would_run(stage: str, why: str) -> StageStatus:
    return StageStatus(stage=stage, status="would run", why=why)
