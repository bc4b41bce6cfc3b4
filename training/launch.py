"""Launch: one call trains a model on a manifest of a lake, or finds that it was trained already."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from infra.errors import UserError
from infra.lake import Lake
from preprocessing.manifest import Manifest, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.store import StoredCase, open_case
from training.checkpoint import Checkpoints, read_checkpoint
from training.config import FinetuneConfig, ModelConfig, PretrainConfig, TrainConfig
from training.data import CropSampler, region_volumes
from training.diffusion import Schedule
from training.loop import OnLog, Training, start, train
from training.networks import ControlledNetwork, DiffusionNetwork
from training.objectives import NoiseObjective, lesion_control, low_resolution_control, superresolution_config
from training.precision import default_device, place
from training.runs import RunSeal, TrainedRun, finetune_key, finished_run, pretrain_key, read_run, seal_key

Network = TypeVar("Network", bound=nn.Module)


def pretrain(lake: Lake, recipe: Recipe, config: PretrainConfig, *, on_log: OnLog | None = None) -> TrainedRun:
    """The diffusion model of the recipe's newest manifest; a run of the same data and config is not repeated.

    Stopped runs go on from their last checkpoint when this is called again.

    Raises:
        UserError: a split or region without cases, a loss that is not finite, a lake that cannot be written.
    """
    manifest = read_manifest(lake, recipe)
    key = pretrain_key(manifest.fingerprint, config)
    if done := finished_run(lake, key):
        return done
    network = _initialised(lambda: DiffusionNetwork(config.model), config.train.seed)
    objective = _objective(lake, manifest, config.train, config.model)
    seal = _seal("pretrain", key, manifest, config, config.model)
    return _run(lake, key, network, objective, config.train, seal, on_log)


def finetune(
    lake: Lake, recipe: Recipe, config: FinetuneConfig, base: TrainedRun | str, *, on_log: OnLog | None = None
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
    network = _initialised(lambda: _controlled(lake, config, base_key), config.train.seed)
    objective = _control_objective(lake, manifest, config, network.config)
    seal = _seal("finetune", key, manifest, config, network.config, base_key)
    return _run(lake, key, network, objective, config.train, seal, on_log)


def load_network(lake: Lake, key: str) -> tuple[DiffusionNetwork | ControlledNetwork, ModelConfig, dict[str, Any]]:
    """The averaged weights of a finished run in eval mode on the CPU, its model config, and its seal as a dict.

    Raises:
        UserError: the run is not finished, or its checkpoint is damaged.
    """
    seal = read_run(lake, key)
    try:
        state = read_checkpoint(lake, seal.checkpoint, seal.sha256)["state"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"the checkpoint {seal.checkpoint} is damaged or gone ({error}); remove {key} and train again"
        ) from None
    network: DiffusionNetwork | ControlledNetwork = DiffusionNetwork(seal.model)
    if seal.stage == "finetune":
        network = ControlledNetwork(network)
    weights = {name.removeprefix("module."): value for name, value in state["average"].items() if name != "n_averaged"}
    network.load_state_dict(weights)
    return place(network.eval().requires_grad_(False), torch.device("cpu")), seal.model, seal.model_dump(mode="json")


def _run(
    lake: Lake,
    key: str,
    network: DiffusionNetwork | ControlledNetwork,
    objective: NoiseObjective,
    config: TrainConfig,
    seal: Callable[[Training, str, str], RunSeal],
    on_log: OnLog | None,
) -> TrainedRun:
    device = default_device()
    network.activations = config.activations
    checkpoints = Checkpoints(lake, key, key.rsplit("/", 1)[-1])
    training = start(place(network, device, config.precision), config)
    train(training, objective, config, checkpoints, device, on_log)
    sealed = seal(training, *checkpoints.written(training.step))
    lake.write(seal_key(key), sealed.model_dump_json(indent=1).encode())
    done = finished_run(lake, key)
    assert done is not None
    return replace(done, unchanged=False)


def _seal(
    stage: Any,
    key: str,
    manifest: Manifest,
    config: PretrainConfig | FinetuneConfig,
    model: ModelConfig,
    base: str = "",
) -> Callable[[Training, str, str], RunSeal]:
    def seal(training: Training, checkpoint: str, sha256: str) -> RunSeal:
        last = {name: value for name, value in training.history[-1].items() if name != "step"}
        return RunSeal(
            stage=stage,
            run=key.rsplit("/", 1)[-1],
            manifest=manifest.fingerprint,
            config=config.model_dump(mode="json"),
            model=model,
            base=base,
            step=training.step,
            checkpoint=checkpoint,
            sha256=sha256,
            metrics=last,
            history=tuple(training.history),
        )

    return seal


def _objective(lake: Lake, manifest: Manifest, config: TrainConfig, model: ModelConfig) -> NoiseObjective:
    def sampler(split: str) -> CropSampler:
        return CropSampler(region_volumes(manifest, split, config.regions), _opener(lake), model.patch, config)

    return NoiseObjective(sampler("train"), sampler("val"), config, Schedule(model.timesteps))


def _control_objective(lake: Lake, manifest: Manifest, config: FinetuneConfig, model: ModelConfig) -> NoiseObjective:
    lesion = config.task == "lesion"
    train_config = config.train if lesion else superresolution_config(config.train)

    def sampler(split: str) -> CropSampler:
        volumes = region_volumes(manifest, split, train_config.regions, lesion=True if lesion else None)
        return CropSampler(volumes, _opener(lake), model.patch, train_config, config.lesion_share if lesion else None)

    control = lesion_control if lesion else low_resolution_control(config.factor)
    return NoiseObjective(sampler("train"), sampler("val"), train_config, Schedule(model.timesteps), control)


def _opener(lake: Lake) -> Callable[[str], StoredCase]:
    return lambda key: open_case(lake, key)


def _controlled(lake: Lake, config: FinetuneConfig, base_key: str) -> ControlledNetwork:
    base, model, _ = load_network(lake, base_key)
    if not isinstance(base, DiffusionNetwork):
        raise UserError(f"{base_key} is itself a fine-tuned run; name the pre-training run to start from")
    if config.from_scratch:
        return ControlledNetwork(DiffusionNetwork(model), locked=False)
    return ControlledNetwork(base)


def _initialised(make: Callable[[], Network], seed: int) -> Network:
    """The network that `make` builds, its random weights decided by the seed and no one else's numbers touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
