"""Config and presets of a sweep: tasks, settings, numbers of cases. Needs no torch, so that forms and plans are quick.

Every σ is on the [-1, 1] scale of the region's window. An evaluation is one batched network call of at most `max_batch`
windows; the tiny preset stays below 220 of them.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from evaluation.extractor_files import RANDOM, ExtractorName, weights_digests
from infra.config import Config
from infra.fingerprint import fingerprint
from infra.tracking import MODEL
from preprocessing.case import RegionName
from preprocessing.recipe import Segmenter
from preprocessing.regions import REGIONS
from training.config import Profile, SegmenterConfig, tiny_segmenter
from training.runs import segmenter_key

MEASUREMENT_VERSION = 7  # raised whenever the same config would measure other numbers

TaskName = Literal["synthesis", "denoising", "anomaly", "superresolution", "lesion-generation", "lesion-inpainting"]
TASKS: tuple[TaskName, ...] = (
    "synthesis",
    "denoising",
    "anomaly",
    "superresolution",
    "lesion-generation",
    "lesion-inpainting",
)
SETTINGS_OF_TASKS: dict[TaskName, str] = {task: task.replace("-", "_") for task in TASKS}  # fields of EvaluateConfig
CONTROLS_OF_TASKS: dict[TaskName, str] = {
    "superresolution": "superresolution",
    "lesion-generation": "lesion",
    "lesion-inpainting": "lesion",
}
SEGMENTED: tuple[TaskName, ...] = ("synthesis", "lesion-generation", "lesion-inpainting")  # read by a segmenter
SHORT = 8  # characters of a checkpoint that tell it apart
ANOMALY_REGION: RegionName = "abdomen"
Field3D = tuple[int, int, int]


class SynthesisConfig(Config):
    """Image-level volumes from held-out anatomy maps, by DDIM (SPEC §6.1)."""

    cases: int = Field(8, ge=1, description="held-out maps per region")
    steps: int = Field(50, ge=1)
    start: int = Field(990, description="t of the first step")
    extractors: tuple[ExtractorName, ...] = Field(
        (RANDOM,),
        description="feature networks of KID, MMD and FID; all but the random one need their weights",
    )
    totalsegmentator: Segmenter | None = Field(
        None, description="the tool that also names the organs of what is drawn, where it is installed"
    )


class DenoisingConfig(Config):
    """Added white noise and the companions of a case, denoised without labels (SPEC §6.2)."""

    field_zyx: Field3D = Field((128, 192, 192), description="voxels of the crop that is restored")
    cases: int = Field(20, ge=1, description="held-out cases per region")
    sigmas: tuple[float, ...] = Field((0.05, 0.15), description="added white noise")
    companions: tuple[str, ...] = Field(
        ("low_dose", "white_noise"), description="noisy companions, where a case has them"
    )
    sigma_factors: tuple[float, ...] = Field(
        (0.7, 1.0, 1.4, 2.0),
        description="companions: times the wavelet estimate of σ, chosen by PSNR on validation cases",
    )
    validation_cases: int = Field(5, ge=1, description="cases per region that choose a method's parameter")
    restore_sigma: float = Field(0.15, description="the setting in which DiffPIR and posterior samples run too")
    restore_cases: int = Field(5, ge=0, description="cases per region for these two")
    restore_steps: int = Field(20, ge=1)
    sample_steps: int = Field(40, ge=1)
    lam: float = Field(10.0, description="λ of DiffPIR")
    zeta: float = Field(0.0, ge=0, le=1, description="ζ of DiffPIR")
    nlm_distance: int = Field(3, ge=1, description="search distance of non-local means in voxels")


class PaintedConfig(Config):
    """Lesions of known contrast painted into healthy organs; the one of contrast 0 is a placebo."""

    cases: int = Field(20, ge=0, description="held-out cases without a lesion in the organ; 0 = none is painted")
    contrasts_hu: tuple[float, ...] = Field((0, -10, -20, -40), min_length=1, description="added inside the ball")
    radius_mm: float = Field(10.0, gt=0, description="of the ball")


class AnomalyConfig(Config):
    """Healthy re-synthesis of one organ from partial noise, the rest of the volume kept (SPEC §6.3)."""

    organ: str = "liver"
    field_zyx: Field3D = (128, 192, 192)
    cases: int = Field(
        20, ge=1, description="held-out cases, with and without a lesion in the organ as evenly as can be"
    )
    noise_t: int = Field(950, ge=1, description="t to which the organ is noised")
    steps: int = Field(50, ge=1)
    repeats: int = Field(4, ge=1, description="reconstructions that are averaged")
    smooth_voxels: float = Field(2.0, ge=0, description="σ of the Gaussian over the difference map")
    percentile: float = Field(99.5, description="of the map inside the organ: the image's score")
    painted: PaintedConfig = PaintedConfig()


class SuperresolutionConfig(Config):
    """Depth super-resolution by ControlNet and DiffPIR (SPEC §6.2), of slices that are thick in several ways.

    The low-resolution image carries no added noise, so `sigma_n` only balances data against prior: small means that
    the slices' means are kept almost exactly. On validation phantoms .01 was 0.0 to 0.2 dB better than .05.
    """

    factor: int = Field(5, ge=2)
    profiles: tuple[Profile, ...] = Field(
        ("mean", "gaussian"), description="how slices become thick: their mean, or a Gaussian as a real scanner's"
    )
    calibration_cases: int = Field(4, ge=1, description="training cases on which the data step's operator is chosen")
    field_zyx: Field3D = (160, 192, 192)
    cases: int = Field(10, ge=1, description="held-out cases per region")
    steps: int = Field(100, ge=1)
    start: int = Field(990, description="t of the first step")
    sigma_n: float = 0.01
    lam: float = 1.0
    zeta: float = Field(0.25, ge=0, le=1)


class AugmentationConfig(Config):
    """Segmenters that learn from real lesions, and from real and drawn ones: whether drawn ones help."""

    cases: int = Field(20, ge=1, description="training cases with a real lesion, and as many healthy ones drawn into")
    iterations: int = Field(2000, ge=1, description="steps of each segmenter, of the network of the sweep's own")


class LesionConfig(Config):
    """Lesions drawn into held-out anatomy (SPEC §6.4, §6.5)."""

    field_zyx: Field3D = (128, 128, 128)
    cases: int = Field(20, ge=1, description="held-out cases with a lesion per region")
    min_voxels: int = Field(8, ge=1, description="smaller lesions are not judged")
    steps: int = Field(100, ge=1)
    start: int = Field(990, description="t of the first step")
    jump_length: int = Field(5, ge=1, description="inpainting: how many steps RePaint goes back up")
    jump_repeats: int = Field(3, ge=1, description="inpainting: how often it walks each stretch")
    dilation_voxels: int = Field(3, ge=0, description="inpainting: the unknown zone beyond the lesion")
    feather_voxels: int = Field(2, ge=0, description="inpainting: blend inside the unknown zone")
    augmentation: AugmentationConfig | None = Field(
        None, description="inpainting: train segmenters with and without what is drawn; none = it is not asked"
    )


class EvaluateConfig(Config):
    """One sweep, but for its data and models: their keys are added by the stage."""

    preset: str = "paper"
    tasks: tuple[TaskName, ...] = TASKS
    regions: tuple[RegionName, ...] = REGIONS
    datasets: tuple[str, ...] = Field((), description="sources whose held-out cases are judged; none named = all")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="every cell is measured once with each")
    workers: int = Field(1, ge=1, description="processes that measure cells; on a GPU machine, one for each GPU")
    overlap: float = Field(0.5, ge=0, lt=1, description="of sliding windows")
    max_batch: int = Field(8, ge=1, description="windows per network call")
    precision: Literal["bf16", "fp32"] = "bf16"
    threads: int = Field(0, ge=0, description="CPU threads of the networks, which the last digits depend on; 0 = all")
    class_mean_cases: int = Field(40, ge=1, description="training cases per region behind label-mean and class-mean")
    segmenter: SegmenterConfig | None = Field(
        SegmenterConfig(), description="trained on the lake, it reads what was drawn; none = it is not read"
    )
    synthesis: SynthesisConfig = SynthesisConfig()
    denoising: DenoisingConfig = DenoisingConfig()
    anomaly: AnomalyConfig = AnomalyConfig()
    superresolution: SuperresolutionConfig = SuperresolutionConfig()
    lesion_generation: LesionConfig = LesionConfig()
    lesion_inpainting: LesionConfig = LesionConfig()


def tiny() -> EvaluateConfig:
    """All six tasks for the tiny model: fields of 32³ windows, below 220 network evaluations, two CPU cores."""
    cube = (32, 32, 32)
    lesion = LesionConfig(
        field_zyx=cube, cases=2, steps=12, jump_length=4, jump_repeats=2, dilation_voxels=2, feather_voxels=1
    )
    return EvaluateConfig(
        preset="tiny",
        max_batch=4,
        threads=2,
        class_mean_cases=12,
        segmenter=tiny_segmenter(),
        synthesis=SynthesisConfig(cases=2, steps=12),
        denoising=DenoisingConfig(
            field_zyx=cube,
            cases=5,
            sigma_factors=(1.0, 2.0),
            validation_cases=2,
            restore_cases=1,
            restore_steps=8,
            sample_steps=8,
            nlm_distance=2,
        ),
        anomaly=AnomalyConfig(
            field_zyx=(32, 48, 48),
            cases=4,
            noise_t=500,
            steps=8,
            repeats=1,
            smooth_voxels=1.0,
            painted=PaintedConfig(cases=1, contrasts_hu=(0, -40)),
        ),
        superresolution=SuperresolutionConfig(factor=2, calibration_cases=2, field_zyx=cube, cases=2, steps=6),
        lesion_generation=lesion,
        lesion_inpainting=lesion,
    )


def paper() -> EvaluateConfig:
    """The paper's tasks at 1 mm; needs a GPU."""
    return EvaluateConfig(lesion_inpainting=LesionConfig(augmentation=AugmentationConfig()))


EVALUATE_PRESETS = {"tiny": tiny, "paper": paper}


class Checkpoint(Config):
    """What is judged: a pre-trained run and the ControlNets fine-tuned from it, by their keys in the lake."""

    base: str
    controls: dict[str, str] = Field(default_factory=dict, description="by fine-tuning task")

    @property
    def name(self) -> str:
        """The fingerprint of the pre-trained run."""
        return self.base.rsplit("/", 1)[-1]

    @property
    def short(self) -> str:
        """As much of its name as tells it apart for people."""
        return self.name[:SHORT]

    @property
    def models(self) -> dict[str, str]:
        """The run's key of each model, by the name that it is registered under."""
        return {MODEL: self.base, **{f"{MODEL}-{task}": key for task, key in self.controls.items()}}


def used_controls(task: TaskName, checkpoint: Checkpoint) -> dict[str, str]:
    """The ControlNets of a checkpoint that a task uses."""
    wanted = CONTROLS_OF_TASKS.get(task, "")
    return {name: key for name, key in checkpoint.controls.items() if name == wanted}


def used_segmenter(config: EvaluateConfig) -> SegmenterConfig | None:
    """The segmenter that reads what a sweep draws; None where there is nothing to be read, or nobody to read it."""
    return config.segmenter if set(config.tasks) & set(SEGMENTED) else None


def used_segmenter_key(config: EvaluateConfig, manifest_fingerprint: str) -> str:
    """Where the segmenter of a sweep lies; "" where it has none."""
    segmenter = used_segmenter(config)
    return segmenter_key(manifest_fingerprint, segmenter) if segmenter else ""


def evaluate_key(manifest_fingerprint: str, config: EvaluateConfig, checkpoints: Sequence[Checkpoint]) -> str:
    """The sweep's place in the lake: equal data, config and checkpoints give equal keys."""
    values = {
        "version": MEASUREMENT_VERSION,
        "manifest": manifest_fingerprint,
        "config": config.model_dump(mode="json", exclude={"workers"}),
        "checkpoints": [checkpoint.model_dump(mode="json") for checkpoint in checkpoints],
        "extractors": weights_digests(config.synthesis.extractors) if "synthesis" in config.tasks else {},
    }
    return f"runs/evaluate/{fingerprint(values)}"
