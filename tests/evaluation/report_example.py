"""A small report with every kind of content, for the tests that read it and those that look at it."""

import math
from typing import Any, NamedTuple

import numpy as np

from evaluation.report import ReportInput
from evaluation.table import aggregate, validate
from preprocessing.regions import WINDOWS, Window


class Panel(NamedTuple):
    caption: str
    image: Any
    window: Any = None


class Picture(NamedTuple):
    title: str
    panels: list
    centre_zyx: Any = None


def rows():
    levels = {"ours-mean": 31.0, "tv": 29.0, "noisy": 22.7}
    for patient in range(5):
        for method, level in levels.items():
            where = {"region": "chest", "setting": "sigma=0.15", "case": f"case-{patient}", "patient": f"P{patient}"}
            base = {"task": "denoising", "dataset": "phantom", "method": method, **where}
            yield {
                **base,
                "metric": "psnr",
                "unit": "dB (range 1800 HU, against noise_free)",
                "value": level + patient / 10,
            }
            yield {**base, "metric": "rmse", "unit": "HU (against noise_free)", "value": 90 - level}
    yield {"task": "lesion-generation", "method": "ours", "reason": "no test case has a lesion <yet>", "value": None}


def pictures(count=1):
    rng = np.random.default_rng(0)
    hu = rng.normal(-400, 300, (12, 16, 20)).astype(np.float32)
    window = WINDOWS["chest"]
    panels = [Panel("noisy", hu, window), Panel("reference", hu, window)]
    panels += [Panel("result − reference", hu + 400, Window(450, 0)), Panel("anomaly map", np.abs(hu) / 900)]
    panels += [Panel("anatomy map", rng.integers(0, 119, hu.shape).astype(np.float32))]
    return {"denoising": [Picture(f"sigma=0.15, chest, phantom case-{index}", panels) for index in range(count)]}


def history():
    return [{"step": step, "loss": 0.8 * math.exp(-step / 60) + 0.3, "val/loss": 0.7} for step in range(10, 281, 10)]


def example(**changes):
    table = validate(rows())
    facts = {"Data": "a" * 32, "Base model": f"runs/pretrain/{'f' * 32}"}
    given = {
        "table": table,
        "aggregated": aggregate(table),
        "pictures": pictures(),
        "trainings": {"Pre-training": history()},
    }
    return ReportInput(**{**given, "facts": facts, "demo": True, **changes})
