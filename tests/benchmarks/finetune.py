"""Fine-tuning a ControlNet on a pre-trained base beside training the same network from scratch, in three seeds.

From scratch is judged twice: at as many steps as the fine-tuning had, and at as many as pre-training and fine-tuning
had together, which is more compute, as a step with a ControlNet costs more than one without. All arms of a seed meet
the same fixed validation samples of phantoms that no training saw. What comes out is reported; a tie is an outcome.
"""

import tempfile
from statistics import mean, stdev

from rich.progress import track

from benchmarks.measure import timed
from benchmarks.small_phantoms import MODEL, RECIPE, TRAIN, phantom_lake
from flows import terminal
from infra.lake import Lake
from training.config import FinetuneConfig, FinetuneTask, PretrainConfig, TrainConfig
from training.launch import finetune, pretrain
from training.runs import TrainedRun

REAL_CTS = False
TITLE = "finetune: L1 of ε on fixed samples of held-out phantoms; mean over seeds, and paired difference to fine-tuned"
SEEDS = (0, 1, 2)
TASKS: tuple[FinetuneTask, ...] = ("superresolution", "lesion")
PRETRAIN_STEPS, FINETUNE_STEPS = 200, 60
LEARNING = TRAIN.replace(ema_decay=0.98, validation_samples=96)


def run(quick: bool = False) -> list[dict]:
    """A row per task and arm."""
    pretrain_steps, finetune_steps, seeds = (2, 2, SEEDS[:2]) if quick else (PRETRAIN_STEPS, FINETUNE_STEPS, SEEDS)
    with tempfile.TemporaryDirectory(prefix="meddiff-bench-") as folder:
        lake = phantom_lake(folder)
        found: dict[tuple[str, str], list[dict]] = {}
        for seed in track(seeds, "seeds", console=terminal.err()):
            train = LEARNING.replace(seed=seed, validation_samples=8 if quick else LEARNING.validation_samples)
            config = PretrainConfig(
                preset="bench-finetune", model=MODEL, train=train.replace(iterations=pretrain_steps)
            )
            before_s, base = timed(lambda c=config: pretrain(lake, RECIPE, c))
            for task in TASKS:
                for arm, result in arms(lake, base, before_s, task, train, (pretrain_steps, finetune_steps)).items():
                    found.setdefault((task, arm), []).append(result)
    return [row(task, arm, results, found[task, "fine-tuned"]) for (task, arm), results in found.items()]


def arms(
    lake: Lake, base: TrainedRun, before_s: float, task: FinetuneTask, train: TrainConfig, steps: tuple[int, int]
) -> dict[str, dict[str, float]]:
    """Validation loss, steps and seconds of every arm; `before_s` is what the base took."""

    def trained(from_scratch: bool, steps: int) -> dict[str, float]:
        own = train.replace(iterations=steps)
        config = FinetuneConfig(preset="bench-finetune", task=task, factor=2, train=own, from_scratch=from_scratch)
        seconds, made = timed(lambda: finetune(lake, RECIPE, config, base))
        return {"loss": made.metrics["val/loss"], "steps": steps, "s": seconds}

    before, own = steps
    tuned = trained(False, own)
    return {
        "fine-tuned": tuned | {"s": tuned["s"] + before_s},
        "scratch, equal steps": trained(True, own),
        "scratch, all steps": trained(True, before + own),
    }


def row(task: str, arm: str, results: list[dict], tuned: list[dict]) -> dict[str, object]:
    """What the table shows of an arm."""
    differences = [one["loss"] - other["loss"] for one, other in zip(results, tuned, strict=True)]
    return {
        "task": task,
        "arm": arm,
        "seeds": len(results),
        "steps": round(mean(r["steps"] for r in results)),
        "s_with_base": mean(r["s"] for r in results),
        "loss": mean(r["loss"] for r in results),
        "above_fine_tuned": mean(differences),
        "spread": stdev(differences),
    }
