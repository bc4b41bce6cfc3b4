"""The training loop: warm-up, Adam, clipping, moving average of the weights, validation on fixed samples, checkpoints.

Nothing here knows what is learned (that is the objective) or where data come from. Every step is a function of the
state before it and of its number, so a resumed run ends with the weights of one that was never stopped.
"""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from infra.errors import UserError
from training.checkpoint import Checkpoints, State
from training.config import TrainConfig
from training.data import Batch
from training.distributed import ALONE, Rank
from training.loader import made_ahead
from training.objectives import Objective, mean_by_group
from training.precision import autocast
from training.runs import OnLog
from training.stopping import sigterm_noticed

logger = logging.getLogger(__name__)
OnShow = Callable[[int, nn.Module], None]


@dataclass
class Training:
    """All that changes while a network is trained; `step` counts finished optimiser steps."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    recent: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def state(self) -> State:
        """What a checkpoint holds."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "recent": self.recent,
            "history": json.dumps(self.history),
        }

    def restore(self, step: int, state: State) -> None:
        """Go back to what `state` was when `step` steps were finished."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.recent, self.history = step, list(state["recent"]), json.loads(state["history"])


def start(network: nn.Module, config: TrainConfig) -> Training:
    """A training at step 0: Adam on what may be trained, and an average that forgets its beginning quickly."""
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
    return Training(network, AveragedModel(network, multi_avg_fn=_averaging(config.ema_decay)), optimizer)


def train(
    training: Training,
    objective: Objective,
    config: TrainConfig,
    checkpoints: Checkpoints,
    device: torch.device,
    rank: Rank = ALONE,
    on_log: OnLog | None = None,
    on_show: OnShow | None = None,
) -> Training:
    """Train to `config.iterations` steps, from the newest checkpoint if there is one; the last step is saved.

    All ranks do this together and hold the same weights; the first one saves and tells. `on_show` gets the averaged
    network every `picture_every` steps. SIGTERM is obeyed after the step that it falls into, and that step is saved.

    Raises:
        UserError: the loss became NaN or infinite (its samples are named), or a checkpoint cannot be written.
    """
    if resumed := checkpoints.latest():
        training.restore(*resumed)
        logger.info("going on from step %d of %d", training.step, config.iterations)
    _require_one_step(rank.gather(training.step))
    clock = _Clock(config, device)
    training.network.train()
    make, left = partial(_batches, objective, config.accumulate), range(training.step, config.iterations)
    with sigterm_noticed() as told_to_stop:
        for step, batches in made_ahead(make, left, config.workers):
            loss, norm = _take_step(training, objective, batches, config, device, rank)
            training.recent.append(loss)
            done = training.step = step + 1
            last = done == config.iterations
            record: dict[str, float] = {}
            if last or done % config.log_every == 0:
                record |= {"loss": _mean(training.recent), "grad_norm": norm, "learning_rate": _rate(config, step)}
                training.recent.clear()
            if config.validation_samples and (last or done % config.validate_every == 0):
                record |= validation_loss(training.average, objective, config, device, rank)
            if record:
                training.history.append({"step": done, **record})
                if on_log and rank.is_first:
                    on_log(done, record | clock.lap(done))
            stopping = told_to_stop()
            if rank.is_first and (last or stopping or done % config.checkpoint_every == 0):
                checkpoints.save(done, training.state())
            if on_show and rank.is_first and _is_due(done, config.picture_every, last):
                on_show(done, training.average)
            if stopping:
                logger.warning("told to stop after step %d of %d; run again to go on", done, config.iterations)
                break
    if training.step < config.iterations:
        raise SystemExit(128 + signal.SIGTERM)
    return training


@torch.no_grad()
def validation_loss(
    network: nn.Module, objective: Objective, config: TrainConfig, device: torch.device, rank: Rank = ALONE
) -> dict[str, float]:
    """Mean loss on the objective's fixed samples, shared out among the ranks: in all, and by region and level."""
    network.eval()
    losses = []
    for batch in objective.validation():
        with autocast(config.precision, device):
            values = objective.losses(network, batch.to(device))
        losses += zip(batch.groups, values.tolist(), strict=True)
    return mean_by_group([loss for share in rank.gather(losses) for loss in share])


def _batches(objective: Objective, accumulate: int, step: int) -> list[Batch]:
    return [objective.batch(step, micro) for micro in range(accumulate)]


def _take_step(
    training: Training,
    objective: Objective,
    batches: Sequence[Batch],
    config: TrainConfig,
    device: torch.device,
    rank: Rank,
) -> tuple[float, float]:
    """One optimiser step on the micro-batches of all ranks; mean loss and gradient norm."""
    losses = []
    for batch in batches:
        with autocast(config.precision, device):
            losses.append(objective.losses(training.network, batch.to(device)))
        (losses[-1].mean() / len(batches)).backward()
    parameters = [p for group in training.optimizer.param_groups for p in group["params"] if p.grad is not None]
    loss = torch.cat(losses).detach().mean().reshape(1)
    if not loss.isfinite():
        _refuse_nonfinite("loss", torch.cat(losses).tolist(), training.step, batches)
    rank.average([*(p.grad for p in parameters), loss])
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    if not norm.isfinite():
        _refuse_nonfinite("gradient", [float(norm)] * sum(map(len, losses)), training.step, batches)
    for group in training.optimizer.param_groups:
        group["lr"] = _rate(config, training.step)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.average.update_parameters(training.network)
    return float(loss), float(norm)


def _refuse_nonfinite(what: str, values: Sequence[float], step: int, batches: Sequence[Batch]) -> NoReturn:
    """Names the samples whose value is not finite."""
    names = [name for batch in batches for name in batch.samples]
    guilty = [f"{name} ({value})" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
    raise UserError(f"the {what} of step {step + 1} is not finite, on: {'; '.join(guilty)}; look at these cases")


def _require_one_step(steps: Sequence[int]) -> None:
    if len(set(steps)) > 1:
        raise UserError(f"the ranks found checkpoints of steps {sorted(set(steps))}; run again when all see one lake")


def _is_due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _rate(config: TrainConfig, step: int) -> float:
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup))


def _averaging(decay: float) -> Callable[..., None]:
    """EMA whose decay after n steps is min(decay, (1 + n)/(10 + n)), so that early weights do not linger."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class _Clock:
    """How fast it goes since the last lap, how many samples were seen, and the most that the GPU has held."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.samples, self.device = config.ranks * config.accumulate * config.batch_size, device
        self.since, self.step = time.perf_counter(), -1

    def lap(self, step: int) -> dict[str, float]:
        now, steps, first = time.perf_counter(), step - self.step, self.step < 0
        seconds, self.since, self.step = (now - self.since) / steps, now, step
        lap = {"samples_seen": float(step * self.samples)}
        if self.device.type == "cuda":
            lap["gpu_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        return lap if first else lap | {"seconds_per_step": seconds, "samples_per_second": self.samples / seconds}
