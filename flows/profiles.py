"""Profiles: the whole pipeline's parameters under one name, and the counts without which it may not go on."""

from pydantic import Field

from evaluation.config import EvaluateConfig
from evaluation.promotion import PromotionConfig
from flows.params import (
    EvaluateChoice,
    FinetuneChoice,
    FinetunePreset,
    PretrainChoice,
    SourceSpec,
    StageParams,
    demo_phantom,
    resolve_evaluate,
    resolve_finetune,
    resolve_pretrain,
)
from infra.errors import UserError
from preprocessing.case import RegionName
from preprocessing.manifest import Manifest
from preprocessing.regions import REGIONS
from training.config import FinetuneConfig, PretrainConfig


class Profile(StageParams):
    """Everything the pipeline is told."""

    name: str = Field("demo", description="shown to people")
    sources: tuple[SourceSpec, ...] = Field((demo_phantom(),), min_length=1, description="what to pull and convert")
    pretrain: PretrainChoice = Field("tiny", description="the model: a preset's name or a full config")
    finetune: tuple[FinetuneChoice, ...] = Field(
        (FinetunePreset(task="superresolution"), FinetunePreset(task="lesion")), description="one ControlNet per entry"
    )
    evaluate: EvaluateChoice = Field("tiny", description="the sweep: a preset's name or a full config")
    promotion: PromotionConfig = Field(PromotionConfig(), description="what makes a checkpoint the champion")
    regions: tuple[RegionName, ...] = Field(REGIONS, description="regions that must have held-out patients")
    min_validation: int = Field(3, ge=1, description="validation patients that every region must have")
    min_test: int = Field(5, ge=1, description="test patients that every region must have")

    @property
    def pretrain_config(self) -> PretrainConfig:
        """The full pre-training config."""
        return resolve_pretrain(self.pretrain)

    @property
    def finetune_configs(self) -> tuple[FinetuneConfig, ...]:
        """The full fine-tuning configs, in order."""
        return tuple(resolve_finetune(choice) for choice in self.finetune)

    @property
    def evaluate_config(self) -> EvaluateConfig:
        """The full sweep config."""
        return resolve_evaluate(self.evaluate)


def demo(lake: str = "", data: str = "") -> Profile:
    """Two CPU cores, ten minutes: the phantom at 4 mm and the tiny models.

    With `data`, a folder of one's own CTs is ingested as well; the phantom stays beside it and fills the splits that a
    small folder leaves empty. Results name the data set of every row.
    """
    own = (SourceSpec(name="folder", options={"path": data}),) if data else ()
    return Profile(name="demo", lake=lake, sources=(*own, demo_phantom()))


PROFILES = {"demo": demo}


def require_splits(manifest: Manifest, profile: Profile) -> None:
    """Every region of the profile has its training, validation and test patients.

    Raises:
        UserError: one has too few; the message names region, split, count and remedy.
    """
    need = {"train": 1, "val": profile.min_validation, "test": profile.min_test}
    for region in profile.regions:
        for split, least in need.items():
            patients = manifest.sealed(split=split, region=region)[["source", "patient"]].drop_duplicates()
            if len(patients) < least:
                raise UserError(
                    f"split {split!r} of region {region!r} has {len(patients)} patients, profile {profile.name!r} "
                    f"needs {least}: ingest more patients with that region, or lower min_validation or min_test"
                )
