"""The figures of the MedDiff-FM paper (arXiv 2410.15432), for orientation only.

Nobody measured them here, and they were measured on other data with other code: they stand beside our tables, never in
them.
"""

from typing import NamedTuple

from evaluation.config import TaskName

SOURCE = "arXiv 2410.15432"


class Published(NamedTuple):
    """One figure: what of, by which metric, the paper's value, and what it stands beside there."""

    task: TaskName
    what: str
    metric: str
    value: float
    beside: str


PUBLISHED = (
    Published("synthesis", "all regions", "FID", 0.0655, "0.1096 at patch level only"),
    Published("synthesis", "all regions", "Dice of organs", 0.8183, "0.6466 at patch level only"),
    Published("synthesis", "head and neck", "Dice of organs", 0.8949, "0.7491 at patch level only"),
    Published("synthesis", "chest", "Dice of organs", 0.7076, "0.4909 at patch level only"),
    Published("synthesis", "abdomen", "Dice of organs", 0.8524, "0.6998 at patch level only"),
    Published("denoising", "Mayo 2016, quarter dose", "gain in SSIM", 0.059, "RED-CNN 0.051, CTformer 0.052"),
    Published("anomaly", "BMAD liver", "AUROC image", 0.8525, "SimpleNet 0.7228"),
    Published("lesion-generation", "lung", "Dice", 0.28, "0.16 from scratch"),
    Published("lesion-generation", "liver", "Dice", 0.48, "0.40 from scratch"),
    Published("lesion-generation", "mediastinal lymph nodes", "Dice", 0.22, "0.01 from scratch"),
    Published("lesion-generation", "abdominal lymph nodes", "Dice", 0.50, "0.32 from scratch"),
    Published("lesion-inpainting", "lung", "Dice", 0.77, "0.42 from scratch"),
    Published("lesion-inpainting", "liver", "Dice", 0.71, "0.71 from scratch"),
    Published("lesion-inpainting", "mediastinal lymph nodes", "Dice", 0.34, "0.30 from scratch"),
    Published("lesion-inpainting", "abdominal lymph nodes", "Dice", 0.53, "0.51 from scratch"),
)


def published_of(task: str) -> list[Published]:
    """The figures of one task."""
    return [figure for figure in PUBLISHED if figure.task == task]
