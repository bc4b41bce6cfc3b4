"""The anomaly map against a network that knows the healthy image: what it finds is the lesion and nothing else."""

import pytest
import torch
from coordinate_grid import coordinate_grid
from task_worlds import MODEL, make_context, small_config, store_case, value, volume
from torch import nn

from evaluation.tasks import anomaly
from infra.lake import open_lake
from preprocessing.regions import WINDOWS
from training.diffusion import Schedule

REGION_SLICES = 20  # of the made-up abdomen, which is the canvas of its crops


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
def judge(tmp_path_factory):
    """(contrast in HU, smoothing, offset of the drawing) -> rows of four patients with a lesion and four without.

    Unsmoothed, a map's voxels are independent, so that chance is .5 within a few hundredths.
    """
    plan = [("train", False), *[("test", True), ("test", False)] * 4]
    stored = {}

    def rows(contrast_hu, smooth_voxels=0.0, offset_hu=0.0):
        if contrast_hu not in stored:
            lake = open_lake(str(tmp_path_factory.mktemp("lake")))
            cases = [store_case(lake, i, split, ill, contrast_hu=contrast_hu) for i, (split, ill) in enumerate(plan)]
            stored[contrast_hu] = lake, cases
        config = small_config()
        changed = config.anomaly.replace(cases=8, smooth_voxels=smooth_voxels)
        context = make_context(stored[contrast_hu], config.replace(anomaly=changed))
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
