"""Real and drawn lesions against real ones alone: whose masks go where; a segmenter learns what it is shown."""

import numpy as np
import pytest
from task_worlds import LIVER, make_context, small_config, store_case

from evaluation.config import AugmentationConfig
from evaluation.tasks import run_task
from evaluation.tasks.lesion_training import fit, real_lesions, transplanted
from infra.lake import open_lake
from training.config import tiny_segmenter
from training.segmentation import TrainedSegmenter

SEGMENTER = tiny_segmenter().replace(channels=(8, 8, 8, 8, 8, 8))
CONFIG = small_config().replace(regions=("abdomen",), segmenter=SEGMENTER)
AUGMENTED = CONFIG.replace(
    lesion_inpainting=CONFIG.lesion_inpainting.replace(augmentation=AugmentationConfig(cases=4, iterations=2))
)


def world(path, plan):
    lake = open_lake(str(path))
    return lake, [store_case(lake, number, split, lesion) for number, (split, lesion) in enumerate(plan)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    plan = [("train", True), ("train", False), ("train", False), ("val", True), ("test", True), ("test", False)]
    return world(tmp_path_factory.mktemp("lake"), plan)


def test_masks_of_training_lesions_go_into_the_same_organ_of_healthy_training_cases(stored):
    context = make_context(stored, CONFIG)
    config = CONFIG.lesion_inpainting
    donors = real_lesions(context, config, 4)
    hosts = transplanted(context, donors, config, 4)
    assert {d.crop.subject.case for d in donors} == {"case-0"}
    assert {h.crop.subject.case for h in hosts} == {"case-1", "case-2"}
    for host in hosts:
        assert host.anatomy[host.lesion].tolist().count(LIVER) > host.lesion.sum() / 2
        assert config.min_voxels <= host.lesion.sum() <= donors[0].lesion.sum()
        assert (host.hu == host.crop.hu()).all()
    again = transplanted(context, donors, config, 4)
    assert all((one.lesion == other.lesion).all() for one, other in zip(hosts, again, strict=True))


def test_every_way_to_fill_them_is_judged_on_the_held_out_lesions(stored):
    rows = run_task("lesion-inpainting", make_context(stored, AUGMENTED)).rows
    found = {row["method"]: row for row in rows if row["metric"] == "dice_trained"}
    assert {method: row["unit"] for method, row in found.items()} == {
        "real": "1 (trained on 1 real and 0 drawn)",
        "constant-hu": "1 (trained on 1 real and 2 drawn)",
        "ours": "1 (trained on 1 real and 2 drawn)",
    }
    assert all(0 <= row["value"] <= 1 and row["case"] == "case-4" for row in found.values())


def test_without_a_healthy_training_case_there_is_a_reason(tmp_path):
    lake = world(tmp_path, [("train", True), ("val", True), ("test", True)])
    rows = run_task("lesion-inpainting", make_context(lake, AUGMENTED)).rows
    (lost,) = [row for row in rows if row["metric"] == "dice_trained"]
    assert lost["reason"].startswith("no healthy training case")


def test_a_segmenter_learns_the_lesions_that_it_is_shown():
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(4):
        mask = np.zeros((32, 32, 32), bool)
        z, y, x = rng.integers(4, 20, 3)
        mask[z : z + 8, y : y + 8, x : x + 8] = True
        pairs.append((np.where(mask, 0.5, -0.3).astype(np.float32), mask))
    trained = TrainedSegmenter(fit(SEGMENTER, pairs, 60, seed=1), "")
    for image, mask in pairs:
        found = trained.segment(image).lesion
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.6


def test_the_seed_decides_the_weights():
    pairs = [(np.zeros((32, 32, 32), np.float32), np.zeros((32, 32, 32), bool))]
    one, again, other = (fit(SEGMENTER, pairs, 2, seed).state_dict() for seed in (3, 3, 4))
    assert all((one[name] == again[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)
