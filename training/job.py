"""Job: one run to train, as every rank is given it, and what a rank does with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from infra.errors import UserError
from infra.lake import Lake
from preprocessing.manifest import Manifest
from preprocessing.store import open_case
from training.checkpoint import Checkpoints
from training.config import FinetuneConfig, PretrainConfig, SegmenterConfig, TrainConfig, TrainedConfig
from training.data import CropSampler, RegionVolume, region_volumes
from training.diffusion import Schedule
from training.distributed import Rank
from training.loading import load_network
from training.loop import Training, start, train
from training.networks import ControlledNetwork, DiffusionNetwork
from training.objectives import NoiseObjective, lesion_control, low_resolution_control, superresolution_config
from training.precision import place
from training.runs import OnLog, OnPicture, RunSeal, Stage, seal_key
from training.seen import what_was_seen
from training.segmentation import SegmentationObjective, lesion_target
from training.segmenter import SegmenterNetwork, label_table

Network = TypeVar("Network", bound=nn.Module)
TrainedNetwork = DiffusionNetwork | ControlledNetwork | SegmenterNetwork
STAGES: dict[type[TrainedConfig], Stage] = {
    PretrainConfig: "pretrain",
    FinetuneConfig: "finetune",
    SegmenterConfig: "segmenter",
}
TIMESTEPS = 1000  # of a segmenter's batches, where t is a share of its noise


@dataclass(frozen=True)
class Job:
    """One run to train; plain data, so that it reaches every rank as it is.

    `base` is the key of the run that it starts from: a fine-tuning's pre-trained network, or the run whose steps a
    pre-training goes on from.
    """

    lake: Lake
    manifest: Manifest
    config: TrainedConfig
    key: str
    base: str = ""

    @property
    def stage(self) -> Stage:
        """Which kind of training it is."""
        return STAGES[type(self.config)]


@dataclass(frozen=True)
class Listener:
    """Who is told of a training as it goes: numbers of a step, and pictures (PNG bytes) of one."""

    on_log: OnLog | None = None
    on_picture: OnPicture | None = None


def train_job(job: Job, rank: Rank, device: torch.device, listener: Listener) -> None:
    """Train a run to its end as one of its ranks; the first rank seals it.

    Raises:
        UserError: a split or region without cases, a base that does not fit, a loss that is not finite, or a lake that
            cannot be written.
    """
    config = job.config.train
    network = _initialised(lambda: _network(job), config.seed)
    if not isinstance(network, SegmenterNetwork):
        network.activations = config.activations
    training = start(place(network, device, config.precision, config.compile), config)
    checkpoints = Checkpoints(job.lake, job.key, _name(job.key), config.keep_checkpoints)
    objective = _objective(job, network, rank)
    if job.stage == "pretrain" and job.base and not checkpoints.steps():
        _go_on_from(job, training)
    if config.compile:
        network.compile(dynamic=False)

    def show(step: int, average: nn.Module) -> None:
        png = objective.picture(average, device)
        job.lake.write(f"{job.key}/samples/step-{step:08d}.png", png)
        if listener.on_picture:
            listener.on_picture(step, png)

    train(training, objective, objective.config, checkpoints, device, rank, listener.on_log, show)
    if rank.is_first:
        seal = _seal(job, network, training, checkpoints, objective.train.volumes)
        job.lake.write(seal_key(job.key), seal.model_dump_json(indent=1).encode())


def _go_on_from(job: Job, training: Training) -> None:
    """The training with all that the newest checkpoint of the base holds."""
    latest = Checkpoints(job.lake, job.base, _name(job.base)).latest()
    if latest is None:
        raise UserError(f"{job.lake.url_of(job.base)} holds no checkpoint to go on from; name a run that was begun")
    step, state = latest
    if step >= job.config.train.iterations:
        raise UserError(f"{job.base} has {step} steps already; raise train.iterations to go on from it")
    try:
        training.restore(step, state)
    except (RuntimeError, ValueError, KeyError):
        raise UserError(f"{job.base} was trained with another model; go on with its own config") from None


def _network(job: Job) -> TrainedNetwork:
    if isinstance(job.config, SegmenterConfig):
        return SegmenterNetwork(job.config)
    if isinstance(job.config, PretrainConfig):
        return DiffusionNetwork(job.config.model)
    base, model, _ = load_network(job.lake, job.base)
    if not isinstance(base, DiffusionNetwork):
        raise UserError(f"{job.base} is itself a fine-tuned run; name the pre-training run to start from")
    if job.config.from_scratch:
        return ControlledNetwork(DiffusionNetwork(model), locked=False)
    return ControlledNetwork(base)


def _objective(job: Job, network: TrainedNetwork, rank: Rank) -> NoiseObjective:
    if isinstance(job.config, SegmenterConfig):
        return _segmentation(job, job.config, rank)
    assert not isinstance(network, SegmenterNetwork)
    model = network.config
    config, control, lesion_share = _task(job.config)
    lesion = True if lesion_share is not None else None

    def sampler(split: str) -> CropSampler:
        volumes = region_volumes(job.manifest, split, config.regions, lesion=lesion)
        return CropSampler(volumes, partial(open_case, job.lake), model.patch, config, lesion_share)

    return NoiseObjective(sampler("train"), sampler("val"), config, Schedule(model.timesteps), control, rank)


def _segmentation(job: Job, config: SegmenterConfig, rank: Rank) -> SegmentationObjective:
    """Every case of the split, with a lesion or without."""

    def sampler(split: str) -> CropSampler:
        volumes = region_volumes(job.manifest, split, config.train.regions)
        opened = partial(open_case, job.lake)
        return CropSampler(volumes, opened, config.patch, config.train, config.lesion_share, lesion_only=False)

    return SegmentationObjective(
        sampler("train"),
        sampler("val"),
        config.train,
        Schedule(TIMESTEPS),
        lesion_target,
        rank,
        label_table(config),
        config.noise,
    )


def _task(config: PretrainConfig | FinetuneConfig) -> tuple[TrainConfig, Callable | None, float | None]:
    """How samples are drawn, what control goes with them, and the share of them that is aimed at a lesion."""
    if isinstance(config, PretrainConfig):
        return config.train, None, None
    if config.task == "lesion":
        return config.train, lesion_control, config.lesion_share
    return superresolution_config(config.train), low_resolution_control(config.factor), None


def _seal(
    job: Job, network: TrainedNetwork, training: Training, checkpoints: Checkpoints, volumes: Sequence[RegionVolume]
) -> RunSeal:
    checkpoint, sha256 = checkpoints.written(training.step)
    return RunSeal(
        stage=job.stage,
        run=_name(job.key),
        manifest=job.manifest.fingerprint,
        config=job.config.model_dump(mode="json"),
        model=None if isinstance(network, SegmenterNetwork) else network.config,
        base=job.base,
        step=training.step,
        checkpoint=checkpoint,
        sha256=sha256,
        metrics={name: value for name, value in training.history[-1].items() if name != "step"},
        history=tuple(training.history),
        recipe=open_case(job.lake, volumes[0].key).record.recipe,
        seen=what_was_seen(volumes, partial(open_case, job.lake)),
    )


def _initialised(make: Callable[[], Network], seed: int) -> Network:
    """The network that `make` builds, its random weights decided by the seed and no one else's numbers touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _name(key: str) -> str:
    return key.rpartition("/")[2]
