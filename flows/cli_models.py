"""Model verbs of the command: run, plan, pretrain, finetune, evaluate, promote."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import filesize

from evaluation.results import checkpoint_of
from flows import terminal
from flows.cli_data import JsonOption, LakeOption, RecipeOption
from flows.cost import Cost, total
from flows.params import (
    FinetunePreset,
    Preset,
    PretrainPreset,
    override,
    resolve_evaluate,
    resolve_finetune,
    resolve_pretrain,
)
from flows.plan import StageStatus
from flows.plan import plan as plan_stages
from flows.profiles import PROFILES, Profile
from flows.results import show_results
from flows.session import flows_here, open_session
from infra.errors import UserError
from infra.lake import Lake, open_lake
from preprocessing.recipe import RECIPES
from training.config import FinetuneTask

ProfileOption = Annotated[
    Literal["demo"], typer.Option("--profile", help="Sources, recipe and presets under one name.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="A directory of your own CTs; the phantom fills the splits beside it.")
]
PresetOption = Annotated[Preset, typer.Option("--preset", help="tiny: two CPU cores; paper: a GPU.")]
PretrainPresetOption = Annotated[
    PretrainPreset, typer.Option("--preset", help="tiny: two CPU cores; paper-24gb: the paper's on a GPU of 24 GB.")
]
StartFromOption = Annotated[
    str, typer.Option("--start-from", metavar="RUN", help="Go on from a run's steps; scratch = leave one on old data.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change one field of the config.")
]
AMOUNTS = {
    "pull_bytes": filesize.decimal,
    "store_bytes": filesize.decimal,
    "cpu_hours": "{:.2g}".format,
    "gpu_hours": "{:.2g}".format,
}


def run(profile: ProfileOption = "demo", data: DataOption = None, lake: LakeOption = "") -> None:
    """The whole way from raw CT to the evaluation table; what is unchanged is not done again."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url)
    chosen = _profile(profile, data, place.url)
    stages = plan_stages(place, chosen)
    _show_plan(stages)
    if not all(stage.unchanged for stage in stages):
        with flows_here(settings):
            from flows.pipeline import pipeline

            pipeline(chosen)
        stages = plan_stages(place, chosen)
    show_results(place, next(stage.key for stage in stages if stage.stage == "evaluate"), settings)


def plan(
    profile: ProfileOption = "demo", data: DataOption = None, lake: LakeOption = "", as_json: JsonOption = False
) -> None:
    """What `run` would do and why; nothing is started and nothing is written."""
    settings = open_session(lake)
    stages = plan_stages(_existing_lake(settings.lake_url), _profile(profile, data, settings.lake_url))
    if as_json:
        terminal.print_json([stage.model_dump(mode="json") for stage in stages])
    else:
        _show_plan(stages)


def pretrain(
    preset: PretrainPresetOption = "paper",
    lake: LakeOption = "",
    recipe: RecipeOption = "paper",
    changes: SetOption = None,
    start_from: StartFromOption = "",
) -> None:
    """Pre-train the diffusion model on the newest manifest."""
    settings = open_session(lake)
    open_lake(settings.lake_url, create=False)
    config = override(resolve_pretrain(preset), changes or ())
    with flows_here(settings):
        from flows.pretrain import PretrainParams
        from flows.pretrain import pretrain as flow

        key = flow(PretrainParams(lake=settings.lake_url, recipe=recipe, config=config, start_from=start_from))
    terminal.out().print(f"checkpoint: {settings.lake_url}/{key}")


def finetune(
    task: Annotated[FinetuneTask, typer.Argument(help="What the ControlNet is conditioned on.")],
    preset: PresetOption = "paper",
    lake: LakeOption = "",
    recipe: RecipeOption = "paper",
    changes: SetOption = None,
) -> None:
    """Fine-tune a ControlNet on the pre-trained model of the same preset."""
    settings = open_session(lake)
    open_lake(settings.lake_url, create=False)
    config = override(resolve_finetune(FinetunePreset(task=task, preset=preset)), changes or ())
    with flows_here(settings):
        from flows.finetune import FinetuneParams
        from flows.finetune import finetune as flow

        key = flow(FinetuneParams(lake=settings.lake_url, recipe=recipe, config=config, base=preset))
    terminal.out().print(f"checkpoint: {settings.lake_url}/{key}")


def evaluate(
    preset: PresetOption = "paper",
    lake: LakeOption = "",
    recipe: RecipeOption = "paper",
    changes: SetOption = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN[,RUN…]", help="Also judge this pre-trained run, with those fine-tuned from it."),
    ] = None,
) -> None:
    """Judge the models of a preset on the held-out cases: six tasks beside their baselines."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    others = tuple(checkpoint_of(place, keys.split(",")) for keys in beside or ())
    config = override(resolve_evaluate(preset), changes or ())
    controls = tuple(FinetunePreset(task=task, preset=preset) for task in ("superresolution", "lesion"))
    with flows_here(settings):
        from flows.evaluate import EvaluateParams
        from flows.evaluate import evaluate as flow

        key = flow(
            EvaluateParams(lake=place.url, recipe=recipe, config=config, base=preset, controls=controls, others=others)
        )
    show_results(place, key, settings)


def promote(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's key or fingerprint, as its report has it.")],
    lake: LakeOption = "",
    recipe: RecipeOption = "paper",
    dataset: Annotated[list[str] | None, typer.Option(help="Data sets that count; default: all in the sweep.")] = None,
) -> None:
    """Make the first checkpoint of a sweep the champion where it is better beyond noise, and say why."""
    from evaluation.champion import promote_candidate
    from evaluation.promotion import PromotionConfig

    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    key = f"runs/evaluate/{sweep.rstrip('/').rpartition('/')[2]}"
    rules = PromotionConfig(datasets=tuple(dataset or ()))
    terminal.out().print(promote_candidate(place, RECIPES[recipe](), key, rules, settings).said, markup=False)


def _profile(name: str, data: Path | None, lake_url: str) -> Profile:
    if data is not None and not data.expanduser().is_dir():
        raise UserError(f"--data {data} is no directory")
    return PROFILES[name](lake=lake_url, data=str(data.expanduser().absolute()) if data else "")


def _existing_lake(url: str) -> Lake | None:
    if "://" not in url and not (Path(url) / "lake.json").exists():
        return None
    return open_lake(url, create=False)


def _show_plan(stages: list[StageStatus]) -> None:
    columns = ("stage", "", "why", "pull", "store", "CPU h", "GPU h")
    rows = [[stage.stage, stage.status, stage.why, *_amounts(stage)] for stage in stages]
    if not all(stage.unchanged for stage in stages):
        rows.append(["in all", "", "? = never measured", *_in_all([stage.cost for stage in stages])])
    terminal.out().print(terminal.table("", columns, rows))


def _amounts(stage: StageStatus) -> list[str]:
    """What a stage would take, as the table says it; nothing where it is done."""
    return [""] * len(AMOUNTS) if stage.unchanged else [_amount(stage.cost, name) for name in AMOUNTS]


def _amount(cost: Cost, name: str) -> str:
    value = getattr(cost, name)
    return "?" if value is None else AMOUNTS[name](value)


def _in_all(costs: list[Cost]) -> list[str]:
    """The sum of what is known, and whether there is more."""
    known = total(costs)
    return [_with_unknown(_amount(known, name), [getattr(cost, name) for cost in costs]) for name in AMOUNTS]


def _with_unknown(text: str, parts: list[float | None]) -> str:
    if None not in parts:
        return text
    return f"{text} + ?" if any(parts) else "?"


VERBS = (run, plan, pretrain, finetune, evaluate, promote)
