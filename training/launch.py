"""Launch: one call trains a model on a manifest of a lake, or finds that it was trained already."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from infra.errors import UserError
from infra.lake import Lake
from infra.spent import Spent, note_spent
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from training.checkpoint import Checkpoints
from training.config import FinetuneConfig, PretrainConfig, SegmenterConfig
from training.distributed import ALONE
from training.elastic import train_on_ranks
from training.job import Job, Listener, train_job
from training.precision import default_device
from training.runs import (
    SCRATCH,
    OnLog,
    OnPicture,
    RunStart,
    TrainedRun,
    base_of,
    finetune_key,
    finished_run,
    note_start,
    pace_of_steps,
    pretrain_key,
    read_run,
    segmenter_key,
    unfinished_on_other_data,
    what_matters,
)


def pretrain(
    lake: Lake,
    recipe: Recipe,
    config: PretrainConfig,
    start_from: str = "",
    *,
    on_log: OnLog | None = None,
    on_picture: OnPicture | None = None,
) -> TrainedRun:
    """The diffusion model of the recipe's newest manifest; a run of the same data and config is not repeated.

    Stopped runs go on from their last checkpoint when this is called again. Where such a run was begun on another
    version of the data, `start_from` must say what is meant: its key goes on from its steps, "scratch" begins anew.

    Raises:
        UserError: a split or region without cases, a run stopped on other data, a `start_from` that does not fit, a
            loss that is not finite, a lake that cannot be written.
    """
    manifest = read_manifest(lake, recipe)
    base = base_of(start_from)
    key = pretrain_key(manifest.fingerprint, config, base)
    if done := finished_run(lake, key):
        return done
    if not start_from:
        _require_no_other(lake, key, manifest, config)
    return _run(Job(lake, manifest, config, key, base), Listener(on_log, on_picture))


def finetune(
    lake: Lake,
    recipe: Recipe,
    config: FinetuneConfig,
    base: TrainedRun | str,
    *,
    on_log: OnLog | None = None,
    on_picture: OnPicture | None = None,
) -> TrainedRun:
    """A ControlNet for one task on a finished pre-training run; the same data, config and base are not trained twice.

    With `from_scratch` the base's weights are not used and the whole network is trained.

    Raises:
        UserError: as `pretrain`, a base that is not finished, or no case with a lesion mask for the lesion task.
    """
    base_key = base if isinstance(base, str) else base.key
    manifest = read_manifest(lake, recipe)
    key = finetune_key(manifest.fingerprint, config, base_key)
    if done := finished_run(lake, key):
        return done
    return _run(Job(lake, manifest, config, key, base_key), Listener(on_log, on_picture))


def train_segmenter(
    lake: Lake,
    recipe: Recipe,
    config: SegmenterConfig,
    *,
    on_log: OnLog | None = None,
    on_picture: OnPicture | None = None,
) -> TrainedRun:
    """The segmenter of the recipe's newest manifest, from its training cases; the same data and config once.

    Raises:
        UserError: as `pretrain`.
    """
    manifest = read_manifest(lake, recipe)
    key = segmenter_key(manifest.fingerprint, config)
    if done := finished_run(lake, key):
        return done
    return _run(Job(lake, manifest, config, key), Listener(on_log, on_picture))


def _run(job: Job, listener: Listener) -> TrainedRun:
    """Train in this process, or on as many ranks as the config names."""
    start = RunStart(key=job.key, manifest=job.manifest.fingerprint, config=what_matters(job.config), base=job.base)
    note_start(job.lake, start)
    laps: list[tuple[int, float]] = []  # the step at each one's end, seconds a step; the first only warms up

    def on_log(step: int, values: Mapping[str, float]) -> None:
        laps.append((step, values.get("seconds_per_step", 0.0)))
        if listener.on_log:
            listener.on_log(step, values)

    timing = replace(listener, on_log=on_log)
    if job.config.train.ranks == 1:
        train_job(job, ALONE, default_device(), timing)
    else:
        train_on_ranks(job, timing)
    _note_pace(job, laps)
    done = finished_run(job.lake, job.key)
    assert done is not None
    return replace(done, unchanged=False)


def _note_pace(job: Job, laps: Sequence[tuple[int, float]]) -> None:
    timed = [(end - start, pace) for (start, _), (end, pace) in pairwise(laps)]
    device = "cuda" if default_device().type == "cuda" else "cpu"
    seconds = sum(steps * pace for steps, pace in timed)
    spent = Spent(count=sum(steps for steps, _ in timed), seconds=seconds, device=device)
    note_spent(job.lake, "steps", pace_of_steps(job.config, read_run(job.lake, job.key).model), spent)


def _require_no_other(lake: Lake, key: str, manifest: Manifest, config: PretrainConfig) -> None:
    """Refuses to begin a run anew while one of the same config stands unfinished on other data."""
    if Checkpoints(lake, key, "").steps():
        return
    for other in unfinished_on_other_data(lake, manifest.fingerprint, config):
        if steps := Checkpoints(lake, other.key, "").steps():
            raise UserError(
                f"a run of this config stopped after step {steps[-1]} of {config.train.iterations} on data version "
                f"{other.manifest[:12]}, and the newest is {manifest.fingerprint[:12]}: start from {other.key} to go "
                f"on from it with the new data, or from {SCRATCH!r} to begin anew"
            )
