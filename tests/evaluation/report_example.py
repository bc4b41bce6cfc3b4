"""A small report with every kind of content, for the tests that read it and those that look at it."""

import math
from typing import Any, NamedTuple

import numpy as np

from evaluation.curves import Curve
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
    z_mm: Any = None


def rows():
    levels = {"ours-mean": 31.0, "ours-restore": 30.2, "tv": 29.0, "noisy": 22.7}
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
    for method, steps in {"ours-mean": 1, "ours-restore": 20, "tv": 0}.items():
        where = {"task": "denoising", "dataset": "phantom", "region": "chest", "setting": "sigma=0.15", "patients": 5}
        yield {**where, "method": method, "metric": "noise_estimates", "unit": "per voxel", "value": steps}
    yield {"task": "lesion-generation", "method": "ours", "reason": "no test case has a lesion <yet>", "value": None}


def pictures(count=1):
    rng = np.random.default_rng(0)
    hu = rng.normal(-400, 300, (12, 16, 20)).astype(np.float32)
    window = WINDOWS["chest"]
    panels = [Panel("noisy", hu, window), Panel("reference", hu, window)]
    panels += [Panel("result − reference", hu + 400, Window(450, 0)), Panel("anomaly map", np.abs(hu) / 900)]
    panels += [Panel("anatomy map", rng.integers(0, 119, hu.shape).astype(np.float32))]
    titles = (f"sigma=0.15, chest, phantom case-{index}" for index in range(count))
    return {"denoising": [Picture(title, panels, z_mm=(-40.0, 4.0)) for title in titles]}


def curves():
    """An ROC curve of two methods, and the noise level of three cases."""
    bent, straight = ((0.0, 0.0), (0.1, 0.6), (1.0, 1.0)), ((0.0, 0.0), (1.0, 1.0))
    where = {"region": "abdomen", "setting": "t=500"}
    roc = [Curve(kind="roc", **where, series=name, points=points)
           for name, points in (("organ-median", straight), ("ours", bent))]  # fmt: skip
    levels = ((0.05, 0.06),), ((0.15, 0.14), (0.15, 0.16))
    sigma = [Curve(kind="sigma", region="chest", setting="", series="added", points=points) for points in levels]
    return {"denoising": [*roc, *sigma]}


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
        "curves": curves(),
    }
    return ReportInput(**{**given, "facts": facts, "demo": True, **changes})
