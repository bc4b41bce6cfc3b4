"""Anomaly detection, zero-shot: one organ is noised to an intermediate t and drawn again as the model knows it.

The rest of the volume is kept at every step; the difference is the anomaly map (SPEC §6.3).
The network is told region and position only, anatomy is unknown. The organ's mask says where to look: organ and lesion
with holes filled, made in the same way with and without a lesion. Maps are 0 outside it.

The map is the absolute difference. A model that draws the whole organ too dark or too bright (an unlearnt contrast
phase, say) finds lesions of that same side less anomalous than healthy tissue, below chance; `ours-centred` is the
difference from its own median in the organ, in which such an offset cancels.

Lesions of known contrast are painted into healthy organs as well, before anything is computed. Those of contrast 0 are
placebos and show what a method scores by the place alone, which is not .5 where a map differs between an organ's middle
and its rim; `auroc_px_organ_gain` is what the contrast adds at the same place.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import baselines
from evaluation.curves import Curve, roc_points
from evaluation.metrics import Measurement, auroc, average_precision, missing, pro
from evaluation.placebo import ball_mask, paint_ball, place_ball
from evaluation.tasks.context import Panel, Picture, Row, TaskContext, TaskResult, to_arrays, to_tensor
from evaluation.tasks.crop import Subject, centre_of
from evaluation.tasks.organ import REGION, OrganSample, in_turns, organ_samples
from preprocessing.anatomy import class_ids
from training.inpainting import repaint, repaint_schedule
from training.sampling import draw_noise, uniform_timesteps
from training.smoothing import smooth_inside

TASK = "anomaly"
AUROC = "auroc_px_organ"


def run(context: TaskContext) -> TaskResult:
    """Anomaly maps of held-out cases, with and without a lesion in the organ, and of those with a painted one.

    Raises:
        UserError: the region has cases but none for test.
    """
    config = context.config.anomaly
    shown = organ_samples(context)
    samples = in_turns(shown)[: config.cases]
    if not samples:
        reason = f"no held-out case shows the {config.organ} with its label"
        return TaskResult(context.unmeasured(TASK, REGION, AUROC, "1", reason))
    healthy = reconstruct(context, samples)
    maps = anomaly_maps(context, samples, healthy)
    setting = f"t={config.noise_t}"
    rows = [row for method, found in maps.items() for row in _rows(context, setting, method, samples, found)]
    painting = painted_lesions(context, [s for s in shown if not s.lesion.any()][: config.painted.cases])
    pictures = [_picture("", samples, healthy, maps["ours"], context), *painting.pictures]
    return TaskResult([*rows, *painting.rows], pictures, roc_curves(setting, samples, maps))


def roc_curves(setting: str, samples: Sequence[OrganSample], maps: dict[str, list[NDArray]]) -> list[Curve]:
    """Each method's ROC curve over the organ's voxels of all samples that show a lesion; none where none does."""
    sick = [i for i, sample in enumerate(samples) if sample.lesion.any()]
    if not sick:
        return []
    truth = np.concatenate([samples[i].lesion[samples[i].organ] for i in sick])
    pooled = {method: np.concatenate([found[i][samples[i].organ] for i in sick]) for method, found in maps.items()}
    curves = (
        Curve(kind="roc", region=REGION, setting=setting, series=method, points=roc_points(scores, truth))
        for method, scores in pooled.items()
    )
    return [curve for curve in curves if len(curve.points) > 2]  # a bare mask says nothing within the organ


def painted_lesions(context: TaskContext, healthy: Sequence[OrganSample]) -> TaskResult:
    """Rows of lesions painted into healthy organs, and a picture of the last contrast.

    Place and noise are the same at every contrast. A case in whose organ the ball fits nowhere, and a set without a
    healthy case, are a row with that reason.
    """
    config = context.config.anomaly
    if config.painted.cases and not healthy:
        reason = f"no held-out case shows the {config.organ} without a lesion, so none was painted"
        return TaskResult(context.unmeasured(TASK, REGION, AUROC, "1", reason))
    balls = [_ball(context, sample.crop.subject, sample.organ) for sample in healthy]
    placed = [(sample, ball) for sample, ball in zip(healthy, balls, strict=True) if ball is not None]
    too_small = [sample.crop.subject for sample, ball in zip(healthy, balls, strict=True) if ball is None]
    unfit = missing(AUROC, "1", f"no ball of {config.painted.radius_mm:g} mm fits into the {config.organ}")
    rows, pictures = [], []
    for contrast in config.painted.contrasts_hu:
        setting = _setting(context, contrast)
        rows += [row for subject in too_small for row in context.rows(TASK, subject, setting, "ours", [unfit])]
        samples = [painted(sample, ball, contrast) for sample, ball in placed]
        if samples:
            drawn = reconstruct(context, samples)
            maps = anomaly_maps(context, samples, drawn)
            rows += [
                row for method, found in maps.items() for row in _pixel_rows(context, setting, method, samples, found)
            ]
            pictures = [_picture(f"painted, {contrast:g} HU, ", samples, drawn, maps["ours"], context)]
    return TaskResult(rows + gains(rows, _setting(context, 0)), pictures)


def _setting(context: TaskContext, contrast_hu: float) -> str:
    return f"t={context.config.anomaly.noise_t} contrast {contrast_hu:g} HU"


def gains(rows: Sequence[Row], placebo: str) -> list[Row]:
    """Each case's AUROC less that of its placebo, as rows; none without a placebo."""
    measured = {(r["setting"], r["method"], r["dataset"], r["case"]): r for r in rows if r["metric"] == AUROC}
    found = []
    for (setting, *who), row in measured.items():
        level = measured.get((placebo, *who))
        if level and setting != placebo and not row["reason"]:
            gain = Measurement(f"{AUROC}_gain", "1 (over the placebo)", row["value"] - level["value"])
            found.append(row | gain._asdict())
    return found


def _ball(context: TaskContext, subject: Subject, organ: NDArray) -> NDArray | None:
    seed = context.seed_for(TASK, "ball", subject.source, subject.case)
    return place_ball(organ, context.config.anomaly.painted.radius_mm, subject.stored.geometry(0).spacing_mm, seed)


def painted(sample: OrganSample, ball: NDArray, contrast_hu: float) -> OrganSample:
    """The sample with a ball in its image, which is then the lesion to be found."""
    x = sample.crop.window.normalise(paint_ball(sample.crop.hu(), ball, contrast_hu))
    return replace(sample, x=x, lesion=ball_mask(ball))


def reconstruct(context: TaskContext, samples: Sequence[OrganSample]) -> list[NDArray[np.float32]]:
    """The organ drawn again from its noised image, everything else kept; the mean of the config's repeats."""
    config, schedule = context.config.anomaly, context.schedule
    x = to_tensor([s.x for s in samples])
    known = 1 - to_tensor([s.organ for s in samples])
    predict = context.predictor([s.crop.blind_scene() for s in samples])
    timesteps = uniform_timesteps(config.noise_t, config.steps)
    visits = repaint_schedule(len(timesteps), len(timesteps), 1)
    total = torch.zeros_like(x)
    for repeat in range(config.repeats):
        generator = context.generator(TASK, repeat)
        start = schedule.add_noise(x, draw_noise(x, generator), config.noise_t)
        total += repaint(
            predict,
            x,
            known,
            timesteps=timesteps,
            visits=visits,
            schedule=schedule,
            generator=generator,
            start_BZYX=start,
        )
    return to_arrays(total / config.repeats)


def anomaly_maps(
    context: TaskContext, samples: Sequence[OrganSample], healthy: Sequence[NDArray]
) -> dict[str, list[NDArray]]:
    """One map per sample and method, 0 outside the organ. `label-mean` compares with the organ's mean in training."""
    width = context.config.anomaly.smooth_voxels
    means = context.class_means(REGION)

    def difference(sample: OrganSample, expected: NDArray, centred: bool = False) -> NDArray:
        change = sample.x - expected
        offset = np.median(change[sample.organ]) if centred else 0
        return smooth_inside(np.abs(change - offset), sample.organ, width)

    def from_mean(sample: OrganSample) -> NDArray:
        mean = means[class_ids()[context.config.anomaly.organ]]
        return np.abs(smooth_inside(sample.x - mean, sample.organ, width))

    return {
        "ours": [difference(s, h) for s, h in zip(samples, healthy, strict=True)],
        "ours-centred": [difference(s, h, centred=True) for s, h in zip(samples, healthy, strict=True)],
        "organ-median": [baselines.organ_deviation(s.x, s.organ, width) for s in samples],
        "organ-noise": [baselines.organ_noise(s.x, s.organ, width) for s in samples],
        "organ-mask": [s.organ.astype(np.float32) for s in samples],
        "label-mean": [from_mean(s) for s in samples],
    }


def _rows(
    context: TaskContext, setting: str, method: str, samples: Sequence[OrganSample], maps: Sequence[NDArray]
) -> list[Row]:
    rows = _pixel_rows(context, setting, method, samples, maps)
    scored = [
        (sample, image_score(method, values, sample, context.config.anomaly.percentile))
        for values, sample in zip(maps, samples, strict=True)
    ]
    sources = sorted({sample.crop.subject.source for sample in samples})
    for group in [sources, *([one] for one in sources if len(sources) > 1)]:  # across scanners it may find the scanner
        some = [(sample, score) for sample, score in scored if sample.crop.subject.source in group]
        image = auroc([score for _, score in some], [bool(s.lesion.any()) for s, _ in some], "auroc_image")
        rows += context.set_rows(TASK, REGION, [s.crop.subject for s, _ in some], setting, method, [image])
    return rows


def _pixel_rows(
    context: TaskContext, setting: str, method: str, samples: Sequence[OrganSample], maps: Sequence[NDArray]
) -> list[Row]:
    rows = []
    for sample, values in zip(samples, maps, strict=True):
        if sample.lesion.any():
            rows += context.rows(TASK, sample.crop.subject, setting, method, pixel_metrics(values, sample))
    return rows


def pixel_metrics(values: NDArray, sample: OrganSample) -> list[Measurement]:
    """AUROC and per-region overlap on all voxels (which a bare organ mask wins) and, with precision, in the organ."""
    everywhere = np.ones_like(sample.organ)
    inside, truth = values[sample.organ], sample.lesion[sample.organ]
    share = Measurement("lesion_share_organ", "1", float(truth.mean()))
    return [
        auroc(inside, truth, AUROC),
        average_precision(inside, truth, "ap_px_organ"),
        auroc(values.ravel(), sample.lesion.ravel(), "auroc_px_all"),
        pro(values, sample.lesion, sample.organ, "pro_organ"),
        pro(values, sample.lesion, everywhere, "pro_all"),
        share,
    ]


def image_score(method: str, values: NDArray, sample: OrganSample, percentile: float) -> float:
    """A high percentile of the map within the organ; for the bare mask the organ's volume."""
    return (
        float(sample.organ.sum()) if method == "organ-mask" else float(np.percentile(values[sample.organ], percentile))
    )


def _picture(
    prefix: str,
    samples: Sequence[OrganSample],
    healthy: Sequence[NDArray],
    maps: Sequence[NDArray],
    context: TaskContext,
) -> Picture:
    i = next((k for k, s in enumerate(samples) if s.lesion.any()), 0)
    sample, window = samples[i], samples[i].crop.window
    shown = sample.lesion if sample.lesion.any() else sample.organ
    z, y, x = (round(c) for c in centre_of(shown))
    panels = [
        Panel("image", sample.crop.hu(), window),
        Panel("organ drawn again", window.to_hu(healthy[i]), window),
        Panel("anomaly map", maps[i].astype(np.float32)),
        Panel("lesion (truth)", sample.lesion.astype(np.float32)),
        Panel("image − drawn", (sample.x - healthy[i]) * np.float32(window.hu_per_unit), window.of_differences),
    ]
    subject = sample.crop.subject
    title = f"{prefix}{context.config.anomaly.organ}, {subject.source} {subject.case}"
    return Picture(title, panels, (z, y, x), sample.crop.z_mm)
