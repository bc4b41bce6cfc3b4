"""The training loop: warm-up, Adam, clipping, moving average of the weights, validation on fixed samples, checkpoints.

Nothing here knows what is learned (that is the objective) or where data come from. Every step is a function of the
state before it and of its number, so a resumed run ends with the weights of one that was never stopped.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from infra.errors import UserError
from training.checkpoint import Checkpoints, State
from training.config import TrainConfig
from training.data import Batch, prefetch
from training.objectives import Objective, mean_by_group
from training.precision import autocast

logger = logging.getLogger(__name__)
OnLog = Callable[[int, Mapping[str, float]], None]


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
    on_log: OnLog | None = None,
) -> Training:
    """Train to `config.iterations` steps, from the newest checkpoint if there is one; the last step is saved.

    Raises:
        UserError: the loss became NaN or infinite (its samples are named), or a checkpoint cannot be written.
    """
    resumed = checkpoints.latest()
    if resumed:
        training.restore(*resumed)
        logger.info("going on from step %d of %d", training.step, config.iterations)
    clock = _Clock()
    training.network.train()
    for step, batches in prefetch(_batches(objective, config), range(training.step, config.iterations)):
        loss, norm = _take_step(training, objective, batches, config, device)
        training.recent.append(loss)
        done = training.step = step + 1
        last = done == config.iterations
        record: dict[str, float] = {}
        if last or done % config.log_every == 0:
            record |= {"loss": _mean(training.recent), "grad_norm": norm, "learning_rate": _rate(config, step)}
            training.recent.clear()
        if config.validation_samples and (last or done % config.validate_every == 0):
            record |= validation_loss(training.average, objective, config, device)
        if record:
            training.history.append({"step": done, **record})
            if on_log:
                on_log(done, record | clock.lap(done))
        if last or done % config.checkpoint_every == 0:
            checkpoints.save(done, training.state())
    return training


@torch.no_grad()
def validation_loss(
    network: nn.Module, objective: Objective, config: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Mean loss on the objective's fixed samples: in all, and by region and level."""
    network.eval()
    losses = []
    for batch in objective.validation():
        with autocast(config.precision, device):
            values = objective.losses(network, batch.to(device))
        losses += zip(batch.groups, values.tolist(), strict=True)
    return mean_by_group(losses)


def _batches(objective: Objective, config: TrainConfig) -> Callable[[int], list[Batch]]:
    return lambda step: [objective.batch(step, micro) for micro in range(config.accumulate)]


def _take_step(
    training: Training, objective: Objective, batches: Sequence[Batch], config: TrainConfig, device: torch.device
) -> tuple[float, float]:
    """One optimiser step on its micro-batches; mean loss and gradient norm."""
    total = 0.0
    for batch in batches:
        with autocast(config.precision, device):
            loss = objective.losses(training.network, batch.to(device)).mean() / len(batches)
        _refuse_nonfinite(loss, "loss", training.step, [batch])
        loss.backward()
        total += loss.item()
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    _refuse_nonfinite(norm, "gradient", training.step, batches)
    for group in training.optimizer.param_groups:
        group["lr"] = _rate(config, training.step)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.average.update_parameters(training.network)
    return total, float(norm)


def _refuse_nonfinite(value: Tensor, what: str, step: int, batches: Sequence[Batch]) -> None:
    if not math.isfinite(value.item()):
        names = "; ".join(name for batch in batches for name in batch.samples)
        raise UserError(f"the {what} became {value.item()} in step {step + 1}, on: {names}; look at these cases")


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
    """Seconds per step since the last lap."""

    def __init__(self) -> None:
        self.since, self.step = time.perf_counter(), -1

    def lap(self, step: int) -> dict[str, float]:
        now, steps = time.perf_counter(), step - self.step
        first = self.step < 0
        seconds, self.since, self.step = now - self.since, now, step
        return {} if first else {"seconds_per_step": seconds / steps}
