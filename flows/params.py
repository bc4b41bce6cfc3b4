"""Params: the parts of which a flow's one parameter is made: which sources, which recipe, which preset.

The same frozen model is the flow's parameter, its form in Prefect and its block in YAML. Where a field takes a preset's
name or a full model, `resolve` gives the full model of either. An empty `lake` is the lake of the machine that runs
the flow.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from evaluation.config import EVALUATE_PRESETS, EvaluateConfig
from infra.config import Config
from infra.errors import UserError
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.identity import FOLDER, folder_behind, folder_in_hiding
from preprocessing.recipe import RECIPES, Recipe
from preprocessing.sources.base import Source
from preprocessing.sources.registry import IDC_COLLECTION, KNOWN, SOURCES, is_source, make_source
from training.config import FINETUNE_PRESETS, PRETRAIN_PRESETS, FinetuneConfig, FinetuneTask, PretrainConfig

Preset = Literal["tiny", "paper"]
PretrainPreset = Literal["tiny", "paper", "paper-wide", "paper-16gb", "paper-24gb", "paper-80gb"]
RecipeName = Literal["demo", "paper", "segmented", "paper-like"]
DEMO_PATIENTS = 24


def _known(name: str) -> str:
    if not is_source(name):
        raise ValueError(f"unknown source {name!r}; known: {KNOWN}")
    return name


class SourceSpec(Config):
    """One source and its options."""

    name: Annotated[str, AfterValidator(_known)] = Field(
        "phantom", description="which source", json_schema_extra={"enum": [*sorted(SOURCES)]}
    )
    options: dict[str, str | int | float | bool | list[str]] = Field(
        default_factory=dict,
        description="options of the source: path, name, identified (folder); patients, seed (phantom); archive, "
        "mirror, keep_raw (public data sets); collection (idc)",
    )

    @model_validator(mode="before")
    @classmethod
    def _collection_as_option(cls, values: Any) -> Any:
        """`idc:nlst` is the source `idc` with the option collection=nlst: the form that Prefect checks knows `idc`."""
        if not isinstance(values, dict) or not IDC_COLLECTION.fullmatch(str(values.get("name"))):
            return values
        name, _, collection = values["name"].partition(":")
        return {**values, "name": name, "options": {**values.get("options", {}), "collection": collection}}

    def make(self) -> Source:
        """The source itself.

        Raises:
            UserError: an option is unknown or its value is no good.
        """
        options = dict(self.options)
        if "path" in options:
            options["path"] = folder_behind(str(options["path"]), load_settings())
        return make_source(self.name, **options)

    def in_hiding(self, lake: Lake, settings: Settings) -> "SourceSpec":
        """The source as Prefect may keep it: an identified folder under its id."""
        if not self.options.get("identified") or "path" not in self.options:
            return self
        path = folder_in_hiding(str(self.options["path"]), lake, settings)
        return self.replace(options={**self.options, "path": path})

    def require_hiding(self) -> None:
        """Refuses an identified folder whose path stands in the parameters.

        Raises:
            UserError: it does.
        """
        if self.options.get("identified") and not str(self.options.get("path", "")).startswith(FOLDER):
            raise UserError(
                "an identified folder is given to a flow as path folder:<id>, since Prefect keeps parameters; `meddiff "
                "ingest folder --path DIR --identified` prints the id; delete this run if its path names a patient"
            )


class StageParams(Config):
    """What every stage is told: which lake and which data of it."""

    lake: str = Field(
        "",
        description="folder or s3:// url; empty = the lake of the machine that runs it",
        json_schema_extra={"position": 0},
    )
    recipe: RecipeName | Recipe = Field(
        "demo",
        description="how volumes are stored: a preset's name or a full recipe",
        json_schema_extra={"position": 1},
    )

    @property
    def full_recipe(self) -> Recipe:
        """The recipe itself, whether named or given."""
        return RECIPES[self.recipe]() if isinstance(self.recipe, str) else self.recipe


def demo_phantom() -> SourceSpec:
    """The phantom at the demo's size: every region has its validation and test patients."""
    return SourceSpec(name="phantom", options={"patients": DEMO_PATIENTS})


PretrainChoice = PretrainPreset | PretrainConfig
EvaluateChoice = Preset | EvaluateConfig


class FinetunePreset(Config):
    """A fine-tuning task with a preset's settings."""

    task: FinetuneTask = Field("superresolution", description="what the ControlNet is conditioned on")
    preset: Preset = Field("tiny", description="size of the run: tiny for two CPU cores, paper for a GPU")


FinetuneChoice = FinetunePreset | FinetuneConfig


def resolve_pretrain(choice: PretrainChoice) -> PretrainConfig:
    """The full config of a preset's name or of a config."""
    return PRETRAIN_PRESETS[choice]() if isinstance(choice, str) else choice


def resolve_finetune(choice: FinetuneChoice) -> FinetuneConfig:
    """The full config of a task's preset or of a config."""
    return FINETUNE_PRESETS[choice.preset](choice.task) if isinstance(choice, FinetunePreset) else choice


def resolve_evaluate(choice: EvaluateChoice) -> EvaluateConfig:
    """The full config of a preset's name or of a config."""
    return EVALUATE_PRESETS[choice]() if isinstance(choice, str) else choice


def override(config: Config, assignments: Sequence[str]) -> Any:
    """A copy of a config with `path.to.field=value` applied, the values read as YAML.

    Raises:
        UserError: no `=`, no such field, or a value that the field refuses.
    """
    values = config.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, field = path.strip().split(".")
        place = values
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or field not in place:
            raise UserError(f"--set {assignment!r} names no field; fields: {', '.join(sorted(_paths(values)))}")
        place[field] = yaml.safe_load(text)
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        raise UserError(f"--set is refused: {sentence(error)}") from None


def sentence(error: ValidationError) -> str:
    """What a validation error says, in one line: field, complaint, value."""
    parts = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
    return "; ".join(parts)


def _paths(values: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        path
        for key, value in values.items()
        for path in (_paths(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
    ]
