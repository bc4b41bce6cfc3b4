"""Configs and presets of pre-training and fine-tuning: frozen models, named functions."""

from typing import Literal

from pydantic import Field

from infra.config import Config
from preprocessing.case import RegionName

Activations = Literal["keep", "recompute", "checkpoint"]
Profile = Literal["mean", "gaussian"]  # of a thick slice along depth
SamplerName = Literal["ddim", "ddpm", "dpm-solver++"]
WITHOUT_EFFECT = {"checkpoint_every", "keep_checkpoints", "picture_every", "workers"}  # on the weights


class ModelConfig(Config):
    """The conditional 3-D U-Net (SPEC §3). Defaults are the paper preset."""

    patch: int = Field(128, description="edge of a training patch and of a sampling window, voxels")
    channels: tuple[int, ...] = (32, 32, 64, 96, 128)
    attention: tuple[bool, ...] = (False, False, False, True, False)
    num_res_blocks: int = 1
    norm_groups: int = 32
    head_channels: int = 32
    context_dim: int = Field(64, description="width of the region embedding used as cross-attention context")
    anatomy_encoding: Literal["embed", "onehot", "binary"] = "embed"
    anatomy_channels: int = Field(16, description="width of the embedded anatomy")
    position: Literal["embedding", "coordinates", "none"] = "embedding"
    position_frequencies: int = Field(
        6, ge=1, description="L of the NeRF encoding, 6L + 3 channels; at most log2(patch) − 1, or the last ones alias"
    )
    timesteps: int = 1000


class TrainConfig(Config):
    """What pre-training and fine-tuning share: optimiser, sampling of crops, dropout of conditions, cadence.

    A step learns from ranks × accumulate × batch_size samples.
    """

    iterations: int = Field(180_000, ge=1, description="optimiser steps")
    batch_size: int = Field(1, ge=1)
    accumulate: int = Field(4, ge=1, description="micro-batches per optimiser step")
    ranks: int = Field(1, ge=1, description="processes that train together on this machine, each on a GPU of its own")
    learning_rate: float = Field(1e-4, gt=0)
    warmup: int = Field(1000, ge=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    activations: Activations = Field(
        "recompute",
        description="for the backward pass: keep all, make norms and SiLUs again, or whole blocks of the finest levels",
    )
    compile: bool = Field(False, description="torch.compile of the network: minutes at the start, faster steps")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="bf16 falls back to fp32 where it is emulated")
    regions: tuple[RegionName, ...] = Field((), description="regions to learn; none named = those that the data show")
    levels: tuple[float, float, float] = Field((1 / 3, 1 / 3, 1 / 3), description="shares of image, wide, patch")
    foreground: float = Field(0.9, description="share of crops centred on a body voxel")
    unknown_anatomy: float = Field(0.15, description="probability that the whole map becomes 119")
    null_region: float = Field(0.1, description="probability that the region becomes null")
    seed: int = 0
    log_every: int = 10
    validate_every: int = 500
    validation_samples: int = Field(24, description="fixed (case, t, noise) samples of the validation loss")
    checkpoint_every: int = 500
    keep_checkpoints: int = Field(2, ge=1, description="the newest ones; older are deleted")
    picture_every: int = Field(5000, ge=0, description="steps between sample pictures, one at the end; 0 = none")
    workers: int = Field(0, ge=0, description="processes that read samples; 0 = a thread of the training process")


class PretrainConfig(Config):
    """One pre-training run, but for its data: the manifest's fingerprint is added by the stage."""

    preset: str = "paper"
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()


FinetuneTask = Literal["superresolution", "lesion"]


class FinetuneConfig(Config):
    """One ControlNet fine-tuning run (SPEC §5) from a pre-trained checkpoint."""

    preset: str = "paper"
    task: FinetuneTask = "lesion"
    train: TrainConfig = TrainConfig(iterations=10_000)
    factor: int = Field(5, ge=2, description="superresolution: slices averaged along z")
    lesion_share: float = Field(0.67, description="lesion: share of crops that contain lesion")
    from_scratch: bool = False


class SegmenterConfig(Config):
    """The segmenter: a U-Net that sees nothing but the image, so that what it names must be in the image.

    It learns anatomy and lesions of real training cases only; generated images are judged by it.
    """

    preset: str = "paper"
    classes: Literal["anatomy", "groups"] = Field(
        "anatomy", description="tell 118 classes apart, or only bone, vessels, lung, muscle, organ and body"
    )
    patch: int = Field(128, ge=32, multiple_of=16, description="edge of a training patch and of a window, voxels")
    channels: tuple[int, int, int, int, int, int] = Field(
        (32, 32, 64, 128, 256, 32), description="of the five levels, and before the last convolution"
    )
    noise: float = Field(0.1, ge=0, description="white noise added in training: uniform up to this, on [-1, 1]")
    lesion_share: float = Field(0.33, description="share of crops that are aimed at a lesion, where a case has one")
    train: TrainConfig = TrainConfig(iterations=50_000, learning_rate=1e-3, unknown_anatomy=0, null_region=0)


def tiny() -> PretrainConfig:
    """32³ patches, 1.75 M parameters: two CPU cores in minutes, also where bf16 is emulated."""
    model = ModelConfig(
        patch=32,
        channels=(16, 32, 64),
        attention=(False, False, True),
        norm_groups=8,
        head_channels=16,
        anatomy_channels=8,
        position_frequencies=4,
    )
    train = TrainConfig(
        iterations=80,
        batch_size=2,
        accumulate=1,
        learning_rate=1.5e-3,
        warmup=15,
        ema_decay=0.99,
        validate_every=40,
        validation_samples=18,
        checkpoint_every=60,
        picture_every=80,
    )
    return PretrainConfig(preset="tiny", model=model, train=train)


def paper() -> PretrainConfig:
    """The paper's model and recipe (SPEC §3.1, §5)."""
    return PretrainConfig()


def paper_wide() -> PretrainConfig:
    """The paper's recipe with multipliers 1, 2, 4, 8, the other plausible reading (SPEC §3.2): 33.1 M parameters."""
    model = ModelConfig(channels=(32, 64, 128, 256), attention=(False, False, False, True))
    return PretrainConfig(preset="paper-wide", model=model)


def paper_16gb() -> PretrainConfig:
    """The paper's model on a GPU of 16 GB, in bf16 or fp32: one sample at a time, norms and SiLUs made again."""
    return _sized("paper-16gb", batch_size=1, accumulate=4, activations="recompute")


def paper_24gb() -> PretrainConfig:
    """The paper's model on a GPU of 24 GB in bf16: a step's four samples at once, norms and SiLUs made again."""
    return _sized("paper-24gb", batch_size=4, accumulate=1, activations="recompute")


def paper_80gb() -> PretrainConfig:
    """The paper's model on a GPU of 80 GB in bf16: a step's four samples at once, compiled, all activations kept."""
    return _sized("paper-80gb", batch_size=4, accumulate=1, activations="keep", compile=True)


def _sized(preset: str, **changes: object) -> PretrainConfig:
    """The paper's recipe with its four samples a step, otherwise laid out for a GPU's memory."""
    return paper().replace(preset=preset, train=paper().train.replace(workers=4, **changes))


def tiny_finetune(task: FinetuneTask) -> FinetuneConfig:
    """30 iterations on top of the tiny model; super-resolution by 2."""
    train = tiny().train.replace(iterations=30, warmup=8, validate_every=15, checkpoint_every=15, picture_every=30)
    return FinetuneConfig(preset="tiny", task=task, train=train, factor=2)


def paper_finetune(task: FinetuneTask) -> FinetuneConfig:
    """10,000 steps per task (SPEC §5); super-resolution by 5."""
    return FinetuneConfig(task=task)


def tiny_segmenter() -> SegmenterConfig:
    """Groups of classes in 32³ patches; two CPU cores, a minute."""
    train = tiny().train.replace(
        precision="fp32",  # gradients of instance norms in bf16 are infinite now and then on a CPU (torch 2.13)
        iterations=150,
        learning_rate=3e-3,
        validate_every=75,
        validation_samples=6,
        checkpoint_every=75,
        picture_every=150,
        unknown_anatomy=0,
        null_region=0,
    )
    return SegmenterConfig(
        preset="tiny", classes="groups", patch=32, channels=(16, 16, 32, 64, 64, 16), lesion_share=0.67, train=train
    )


def paper_segmenter() -> SegmenterConfig:
    """128³ patches; needs a GPU."""
    return SegmenterConfig()


PRETRAIN_PRESETS = {
    "tiny": tiny,
    "paper": paper,
    "paper-wide": paper_wide,
    "paper-16gb": paper_16gb,
    "paper-24gb": paper_24gb,
    "paper-80gb": paper_80gb,
}
FINETUNE_PRESETS = {"tiny": tiny_finetune, "paper": paper_finetune}
SEGMENTER_PRESETS = {"tiny": tiny_segmenter, "paper": paper_segmenter}
TrainedConfig = PretrainConfig | FinetuneConfig | SegmenterConfig
"""What any training is told."""
