"""The anomaly map against a network that knows the healthy image: what it finds is the lesion and nothing else."""

import math

import pytest
import torch
from coordinate_grid import coordinate_grid
from task_worlds import MODEL, make_context, small_config, store_case, value, volume
from torch import nn

from evaluation.config import PaintedConfig
from evaluation.placebo import place_ball
from evaluation.tasks import anomaly
from evaluation.tasks.organ import organ_samples
from infra.lake import open_lake
from preprocessing.regions import WINDOWS
from training.diffusion import Schedule

REGION_SLICES = 20  # of the made-up abdomen, which is the canvas of its crops
METHODS = ("ours", "ours-centred", "organ-median", "organ-noise", "organ-mask", "label-mean")
AUROC = "auroc_px_organ"
NOTHING = PaintedConfig(cases=0)
PLAN = [("train", False), *[("test", True), ("test", False)] * 4]


class Oracle(nn.Module):
    """ε of the state whose x_0 is the healthy image, found at the place that the coordinates name, and an offset."""

    def __init__(self, offset_hu=0.0):
        super().__init__()
        healthy = volume(0, lesion=False)["noise_free"][:REGION_SLICES] + offset_hu
        self.healthy_ZYX = torch.from_numpy(WINDOWS["abdomen"].normalise(healthy))
        self.schedule = Schedule(MODEL.timesteps)

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        size = torch.tensor(self.healthy_ZYX.shape).reshape(1, 3, 1, 1, 1)
        z, y, x = ((coordinate_grid(conditions.coordinates_BN) + 1) / 2 * size - 0.5).round().long().unbind(1)
        return self.schedule.predict_eps(x_B1ZYX, self.healthy_ZYX[z, y, x][:, None], t_B)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A training case and a test case with a lesion and one without."""
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    return lake, [store_case(lake, i, split, ill) for i, (split, ill) in enumerate(PLAN[:3])]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """(contrast in HU, smoothing, offset of the drawing, what is painted) -> rows of four patients with a lesion and
    four without.

    Unsmoothed, a map's voxels are independent, so that chance is .5 within a few hundredths.
    """
    worlds = {}

    def rows(contrast_hu=-60, smooth_voxels=0.0, offset_hu=0.0, painted=NOTHING):
        if contrast_hu not in worlds:
            lake = open_lake(str(tmp_path_factory.mktemp("lake")))
            cases = [store_case(lake, i, split, ill, contrast_hu=contrast_hu) for i, (split, ill) in enumerate(PLAN)]
            worlds[contrast_hu] = lake, cases
        config = small_config()
        changed = config.anomaly.replace(cases=8, smooth_voxels=smooth_voxels, painted=painted)
        context = make_context(worlds[contrast_hu], config.replace(anomaly=changed))
        context.base = Oracle(offset_hu)
        return anomaly.run(context).rows

    return rows


@pytest.mark.parametrize("smooth_voxels", [0, 1])
@pytest.mark.parametrize("contrast_hu", [-60, 60])
def test_with_the_healthy_image_known_darker_and_brighter_lesions_are_found(judge, contrast_hu, smooth_voxels):
    rows = judge(contrast_hu, smooth_voxels)
    assert value(rows, method="ours", metric="auroc_px_organ") > 0.95
    assert value(rows, method="ours", metric="auroc_image") == 1


def test_a_lesion_without_contrast_is_found_by_chance_only(judge):
    rows = judge(0)
    assert value(rows, method="ours", metric="auroc_px_organ") == pytest.approx(0.5, abs=0.06)
    share = value(rows, method="ours", metric="lesion_share_organ")
    assert value(rows, method="ours", metric="ap_px_organ") == pytest.approx(share, abs=0.03)


def test_more_contrast_is_found_more_surely(judge):
    found = [value(judge(contrast), method="ours", metric="auroc_px_organ") for contrast in (0, -20, -60)]
    assert found[0] + 0.2 < found[1] < found[2]


def test_a_drawing_that_is_dark_everywhere_hides_a_dark_lesion_from_the_map_but_not_from_the_centred_one(judge):
    rows = judge(-60, offset_hu=-60)
    assert value(rows, method="ours", metric="auroc_px_organ") < 0.1
    assert value(rows, method="ours-centred", metric="auroc_px_organ") > 0.95


def test_centring_costs_nothing_where_the_drawing_is_right(judge):
    rows = judge(60)
    assert value(rows, method="ours-centred", metric="auroc_px_organ") > 0.95
    placebo = value(judge(0), method="ours-centred", metric="auroc_px_organ")
    assert placebo == pytest.approx(0.5, abs=0.06)


def painting(stored, **painted):
    """A context whose network remembers, and the lesions to paint."""
    config = small_config()
    return make_context(stored, config.replace(anomaly=config.anomaly.replace(painted=PaintedConfig(**painted))))


def at(contrast_hu):
    return f"t=500 contrast {contrast_hu} HU"


def test_every_method_meets_every_painted_contrast_in_every_healthy_case(judge):
    rows = judge(painted=PaintedConfig(radius_mm=9))
    for contrast in (0, -10, -20, -40):
        for method in METHODS:
            found = [r for r in rows if (r["setting"], r["method"], r["metric"]) == (at(contrast), method, AUROC)]
            assert sorted(r["patient"] for r in found) == [f"patient-{i}" for i in (2, 4, 6, 8)]
            assert all(0 < r["value"] <= 1 for r in found)


def test_a_placebo_is_found_by_chance_and_more_painted_contrast_more_surely(judge):
    rows = judge(painted=PaintedConfig(contrasts_hu=(0, -20, -60), radius_mm=12))
    for method in ("ours", "ours-centred"):
        placebo, faint, clear = (value(rows, method=method, metric=AUROC, setting=at(c)) for c in (0, -20, -60))
        assert placebo == pytest.approx(0.5, abs=0.06)
        assert placebo + 0.2 < faint < clear
        assert clear > 0.95
        assert value(rows, method=method, metric=f"{AUROC}_gain", setting=at(-20)) == pytest.approx(faint - placebo)


def test_a_gain_is_over_the_placebo_at_the_same_place(stored):
    rows = anomaly.run(painting(stored, contrasts_hu=(-40, 0), radius_mm=9)).rows
    found = {(r["setting"], r["method"]): r["value"] for r in rows if r["metric"] == f"{AUROC}_gain"}
    assert set(found) == {(at(-40), method) for method in METHODS}
    assert found[at(-40), "organ-mask"] == 0
    assert found[at(-40), "organ-median"] > 0.2


def test_without_a_placebo_there_is_no_gain(stored):
    rows = anomaly.run(painting(stored, contrasts_hu=(-40,), radius_mm=9)).rows
    assert at(-40) in {row["setting"] for row in rows}
    assert not [row for row in rows if row["metric"].endswith("_gain")]


def test_a_placebo_leaves_the_image_as_it_is_whatever_is_called_a_lesion(stored):
    context = make_context(stored)
    sample = next(s for s in organ_samples(context) if not s.lesion.any())
    ball = place_ball(sample.organ, 9, (4, 4, 4), seed=1)
    placebo = anomaly.painted(sample, ball, 0)
    assert placebo.x.tobytes() == sample.x.tobytes()
    assert placebo.lesion.any()
    assert (placebo.lesion <= sample.organ).all()


def test_the_network_is_not_told_where_a_lesion_was_painted(stored):
    """At contrast 0 nothing that enters it depends on the ball."""

    def entered(radius_mm):
        context = painting(stored, contrasts_hu=(0,), radius_mm=radius_mm)
        anomaly.run(context)
        return context.base.calls

    for (x, t, conditions, _), (other_x, other_t, others, _) in zip(entered(6), entered(12), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(t, other_t)
        assert torch.equal(conditions.anatomy_BZYX, others.anatomy_BZYX)


def test_place_and_noise_are_the_same_at_every_contrast(stored):
    """So equal contrasts give equal rows, from a network whose drawing follows the noise."""
    found = anomaly.run(painting(stored, contrasts_hu=(-20, -20), radius_mm=9)).rows
    values = [r["value"] for r in found if (r["setting"], r["method"], r["metric"]) == (at(-20), "ours", AUROC)]
    assert len(values) == 2
    assert values[0] == values[1]


def test_an_organ_that_is_too_small_for_the_ball_is_a_row_with_the_reason(judge):
    rows = [r for r in judge(painted=PaintedConfig(radius_mm=90)) if "contrast" in r["setting"]]
    assert len(rows) == 4 * 4
    assert {r["reason"] for r in rows} == {"no ball of 90 mm fits into the liver"}
    assert all(math.isnan(r["value"]) and r["patient"] for r in rows)


def test_without_a_healthy_case_the_table_says_so(stored):
    lake, rows = stored
    context = make_context((lake, [row for row in rows if row.split == "train" or row.lesion]))
    reasons = [row["reason"] for row in anomaly.run(context).rows if row["reason"]]
    assert "no held-out case shows the liver without a lesion, so none was painted" in reasons


def test_cases_are_told_apart_within_each_data_set_too(tmp_path):
    """One scanner's healthy cases against another's ill ones may only show the scanner."""
    lake = open_lake(str(tmp_path / "lake"))
    cases = [store_case(lake, i, split, ill) for i, (split, ill) in enumerate(PLAN[:5])]
    named = [row.model_copy(update={"source": "b"}) if i > 2 else row for i, row in enumerate(cases)]
    rows = anomaly.run(make_context((lake, named), small_config())).rows
    image = [row for row in rows if row["metric"] == "auroc_image" and row["method"] == "organ-noise"]
    assert [(row["dataset"], row["patients"]) for row in image] == [("b+made-up", 4), ("b", 2), ("made-up", 2)]
