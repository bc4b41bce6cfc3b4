"""Denoising, zero-shot: posterior mean, DiffPIR and a posterior sample beside classical smoothers (SPEC §6.2).

The network is told region and position, never labels: anatomy is unknown everywhere. Smoothers and, for companions, the
factor on the estimated noise level are chosen per region on validation cases. Metrics are taken in the body, against
the noise-free companion where a case has one.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation import baselines
from evaluation.curves import Curve
from evaluation.metrics import COST, Measurement, gain_ceiling_db, image_quality, missing, psnr
from evaluation.sharpness import edge_sharpness, noise_frequencies
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.crop import crop_body
from evaluation.tasks.noisy import NOISE_FREE, NoisySample, Setting, noisy_samples, reference_noise, settings, topped_up
from preprocessing.case import RegionName
from preprocessing.regions import Window
from training.noise_level import estimate_sigma
from training.restoration import consistent_start, diffpir, identity_step, posterior_mean
from training.sampling import ancestral, uniform_timesteps

TASK = "denoising"
Estimates = list[NDArray[np.float32]]


def run(context: TaskContext) -> TaskResult:
    """Every setting on the held-out cases of every region.

    Raises:
        UserError: a region has cases but none for validation or test.
    """
    config = context.config.denoising
    result = TaskResult()
    crops = {
        split: [
            crop_body(s, config.field_zyx) for r in context.config.regions for s in context.subjects(r, split, limit)
        ]
        for split, limit in (("val", config.validation_cases), ("test", config.cases))
    }
    for setting in settings(config):
        test = noisy_samples(context, crops["test"], setting)
        if not test:
            reason = f"no held-out case has the companion {setting.companion!r}" if setting.companion else "no case"
            result.rows.extend(context.unmeasured(TASK, "", "psnr", "dB", reason))
            continue
        found = estimates(context, setting, noisy_samples(context, crops["val"], setting), test)
        result.rows.extend(row for method, xs in found.items() for row in _rows(context, setting, method, test, xs))
        result.rows.extend(row for sample in test for row in _ceiling_rows(context, setting, sample))
        result.rows.extend(cost_rows(context, setting, test, list(found)))
        result.pictures.extend(_pictures(setting, test, found))
        result.curves.extend(sigma_curves(setting, test))
    return result


def cost_rows(
    context: TaskContext, setting: Setting, samples: Sequence[NoisySample], methods: Sequence[str]
) -> list[Row]:
    """How many noise estimates of every voxel a method takes: what it costs, whatever the machine."""
    config = context.config.denoising
    steps = dict.fromkeys(baselines.CANDIDATES, 0) | {
        "ours-mean": 1,
        "ours-restore": config.restore_steps,
        "ours-sample": config.sample_steps,
    }
    rows = []
    for region in dict.fromkeys(s.crop.subject.region for s in samples):
        subjects = [s.crop.subject for s in samples if s.crop.subject.region == region]
        for method in methods:
            if method in steps:
                cost = Measurement(COST, "per voxel", steps[method])
                rows += context.set_rows(TASK, region, subjects, setting.name, method, [cost])
    return rows


def sigma_curves(setting: Setting, samples: Sequence[NoisySample]) -> list[Curve]:
    """Per region the estimated noise level of each sample over the true one: what was added and the image's own.

    Without a noise-free companion the image's own noise is unknown and left out of the true one.
    """
    points: dict[RegionName, list[tuple[float, float]]] = {}
    for sample in samples:
        noise = (sample.noisy - sample.reference)[sample.mask]
        estimate = estimate_sigma(sample.noisy, sample.mask)
        if noise.size and math.isfinite(estimate):
            points.setdefault(sample.crop.subject.region, []).append((float(noise.std()), estimate))
    series = setting.companion.replace("_", " ") or "added white noise"
    return [
        Curve(kind="sigma", region=region, setting="", series=series, points=tuple(found))
        for region, found in points.items()
    ]


def estimates(
    context: TaskContext, setting: Setting, validation: list[NoisySample], test: list[NoisySample]
) -> dict[str, dict[int, NDArray]]:
    """Each method's results on [-1, 1], by index of the test sample (DiffPIR and samples: only the first few)."""
    found = {"noisy": dict(enumerate(s.noisy for s in test))}
    for method, candidates in baselines.CANDIDATES.items():
        found[method] = dict(enumerate(_smoothed(context, method, candidates, validation, test)))
    found["label-mean"] = {i: label_mean(context, s) for i, s in enumerate(test) if has_labels(s)}
    factors = choose_factors(context, validation) if setting.companion else {}
    found["ours-mean"] = dict(enumerate(mean_estimates(context, test, factors)))
    config = context.config.denoising
    few = _first_of_each_region(test, config.restore_cases) if setting.sigma == config.restore_sigma else []
    if few:
        chosen = [test[i] for i in few]
        found["ours-restore"] = dict(zip(few, restore_estimates(context, chosen, setting.sigma), strict=True))
        found["ours-sample"] = dict(zip(few, sample_estimates(context, chosen, setting.sigma), strict=True))
    return found


def mean_estimates(context: TaskContext, samples: Sequence[NoisySample], factors: dict[RegionName, float]) -> Estimates:
    """The posterior mean of every sample, one network pass over their windows; σ times its region's factor."""
    if not samples:
        return []
    sigmas = [s.sigma * factors.get(s.crop.subject.region, 1.0) for s in samples]
    predict = context.predictor([s.crop.blind_scene() for s in samples])
    y = to_tensor([topped_up(context, s, sigma) for s, sigma in zip(samples, sigmas, strict=True)])
    return to_arrays(posterior_mean(predict, y, sigmas, context.schedule))


def restore_estimates(context: TaskContext, samples: Sequence[NoisySample], sigma: float) -> Estimates:
    """DiffPIR with H = I from a consistent start."""
    config, schedule = context.config.denoising, context.schedule
    start, y = schedule.nearest_t(sigma), to_tensor([s.noisy for s in samples])
    generator = context.generator(TASK, "restore")
    restored = diffpir(
        context.predictor([s.crop.blind_scene() for s in samples]),
        consistent_start(y, sigma, start, schedule, generator),
        identity_step(y),
        sigma_n=sigma,
        lam=config.lam,
        timesteps=uniform_timesteps(start, config.restore_steps),
        schedule=schedule,
        zeta=config.zeta,
        generator=generator,
    )
    return to_arrays(restored)


def sample_estimates(context: TaskContext, samples: Sequence[NoisySample], sigma: float) -> Estimates:
    """One draw from the posterior: ancestral sampling from y as the state at its own noise level."""
    schedule = context.schedule
    start, y = schedule.nearest_t(sigma), to_tensor([s.noisy for s in samples])
    generator = context.generator(TASK, "sample")
    drawn = ancestral(
        context.predictor([s.crop.blind_scene() for s in samples]),
        consistent_start(y, sigma, start, schedule, generator),
        uniform_timesteps(start, context.config.denoising.sample_steps),
        schedule,
        generator=generator,
    )
    return to_arrays(drawn)


def choose_factors(context: TaskContext, validation: Sequence[NoisySample]) -> dict[RegionName, float]:
    """Per region the factor on the estimated σ with the best mean PSNR of `ours-mean` on validation samples."""
    factors, regions = context.config.denoising.sigma_factors, {s.crop.subject.region for s in validation}
    if len(factors) == 1:
        return dict.fromkeys(regions, factors[0])
    scores = {f: _psnrs(validation, mean_estimates(context, validation, dict.fromkeys(regions, f))) for f in factors}
    mine = {region: [i for i, s in enumerate(validation) if s.crop.subject.region == region] for region in regions}
    return {r: baselines.choose(factors, lambda f, r=r: float(np.mean([scores[f][i] for i in mine[r]]))) for r in mine}


def _psnrs(samples: Sequence[NoisySample], xs: Sequence[NDArray]) -> list[float]:
    return [psnr(x, s.reference, s.mask) if s.mask.any() else 0.0 for s, x in zip(samples, xs, strict=True)]


def _smoothed(
    context: TaskContext,
    method: str,
    candidates: Sequence[float],
    validation: Sequence[NoisySample],
    test: Sequence[NoisySample],
) -> Estimates:
    """The smoother with the parameter that is best on its region's validation samples."""
    distance = context.config.denoising.nlm_distance

    def apply(sample: NoisySample, parameter: float) -> NDArray:
        return np.clip(baselines.smooth(method, sample.noisy, sample.sigma, parameter, distance), -1, 1)

    best: dict[RegionName, float] = {}
    for region in {s.crop.subject.region for s in test}:
        own = [s for s in validation if s.crop.subject.region == region]
        best[region] = baselines.choose(
            candidates, lambda p, own=own: float(np.mean(_psnrs(own, [apply(s, p) for s in own]) or [0.0]))
        )
    return [apply(s, best[s.crop.subject.region]) for s in test]


def has_labels(sample: NoisySample) -> bool:
    """Whether the case's organs are named at all."""
    return sample.crop.subject.stored.record.anatomy != "none"


def label_mean(context: TaskContext, sample: NoisySample) -> NDArray[np.float32]:
    """What the labels alone buy: the reference's own map, each class at its training mean. No network sees it."""
    return baselines.paint(context.class_means(sample.crop.subject.region), sample.crop.labels())


def _first_of_each_region(samples: Sequence[NoisySample], count: int) -> list[int]:
    regions = [s.crop.subject.region for s in samples]
    return [i for i, region in enumerate(regions) if regions[:i].count(region) < count]


def _rows(
    context: TaskContext, setting: Setting, method: str, samples: Sequence[NoisySample], xs: dict[int, NDArray]
) -> list[Row]:
    rows = []
    for i, sample in enumerate(samples):
        if i in xs:
            measured = _measure(sample, xs[i], setting)
        elif method == "label-mean":
            measured = [missing("psnr", "dB", "the case has no anatomy labels")]
        else:
            continue
        rows += context.rows(TASK, sample.crop.subject, setting.name, method, measured)
    return rows


def _measure(sample: NoisySample, x: NDArray, setting: Setting) -> list[Measurement]:
    """Quality against the reference, gain over the noisy input, and for added noise the gain as the image sees it."""
    window = sample.crop.window
    measured = image_quality(x, sample.reference, sample.mask, window, sample.against)
    spacing = sample.crop.subject.stored.geometry(0).spacing_mm
    error_hu = (x - sample.reference) * window.hu_per_unit
    measured.append(edge_sharpness(x, sample.reference, sample.mask, spacing, sample.against))
    measured += noise_frequencies(error_hu, sample.mask, spacing, sample.against)
    measured.append(_gain("psnr_gain", sample, x, sample.reference, sample.against))
    if setting.sigma and sample.against == NOISE_FREE:
        measured.append(_gain("psnr_gain_vs_image", sample, x, sample.stored, "image"))
    return measured


def _gain(metric: str, sample: NoisySample, x: NDArray, reference: NDArray, against: str) -> Measurement:
    unit = f"dB (against {against})"
    if not sample.mask.any():
        return missing(metric, unit, "the mask is empty")
    return Measurement(metric, unit, psnr(x, reference, sample.mask) - psnr(sample.noisy, reference, sample.mask))


def _ceiling_rows(context: TaskContext, setting: Setting, sample: NoisySample) -> list[Row]:
    """20·log10(σ_added/σ_ref): what the noise-free image itself would gain against the stored image."""
    if not setting.sigma:
        return []
    name, unit, sigma = "psnr_gain_vs_image", "dB (against image)", reference_noise(sample)
    if math.isfinite(sigma) and sigma > 0:
        ceiling = Measurement(name, unit, gain_ceiling_db(setting.sigma, sigma))
    else:
        ceiling = missing(name, unit, "the image's own noise is unknown without a noise-free companion")
    return context.rows(TASK, sample.crop.subject, setting.name, "ceiling", [ceiling])


def _pictures(setting: Setting, samples: Sequence[NoisySample], found: dict[str, dict[int, NDArray]]) -> list[Picture]:
    """One row per region: its first sample."""
    pictures = []
    for i in _first_of_each_region(samples, 1):
        sample, window = samples[i], samples[i].crop.window
        ours, difference = found["ours-mean"][i], Window(window.width_hu / 4, 0)
        panels = [
            Panel("noisy", window.to_hu(sample.noisy), window),
            Panel("posterior mean", window.to_hu(ours), window),
            Panel("total variation", window.to_hu(found["tv"][i]), window),
            Panel(f"reference ({sample.against})", window.to_hu(sample.reference), window),
            Panel("result − reference", (ours - sample.reference) * np.float32(window.hu_per_unit), difference),
        ]
        subject = sample.crop.subject
        title = f"{setting.name}, {subject.region}, {subject.source} {subject.case}"
        pictures.append(Picture(title, panels, z_mm=sample.crop.z_mm))
    return pictures
