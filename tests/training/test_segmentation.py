"""The segmenter: what it is told, what it loses, and that it learns organs from real cases of the training split."""

import numpy as np
import pytest
import torch
from training_worlds import RECIPE, SMALL, make_lake

from infra.errors import UserError
from preprocessing.anatomy import BODY, UNKNOWN, class_ids
from preprocessing.manifest import read_manifest
from preprocessing.regions import WINDOWS
from preprocessing.store import open_case
from training.config import SEGMENTER_PRESETS, SegmenterConfig, tiny, tiny_segmenter
from training.launch import pretrain, train_segmenter
from training.loading import load_network
from training.runs import read_run, segmenter_key
from training.segmentation import lesion_target, open_segmenter
from training.segmenter import GROUPS, IGNORED, SegmenterNetwork, anatomy_loss, label_table, lesion_loss, num_labels

ALL, GROUPED = SegmenterConfig(), tiny_segmenter()


def small(**changes):
    few = {"iterations": 60, "validate_every": 30, "checkpoint_every": 30, "picture_every": 60, "validation_samples": 2}
    train = GROUPED.train.replace(**{**few, **changes})
    return GROUPED.replace(patch=32, channels=(8, 8, 8, 8, 8, 8), train=train)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return make_lake(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def trained(lake):
    return train_segmenter(lake, RECIPE, small())


def test_labels_are_the_classes_or_their_groups_and_unknown_anatomy_has_none():
    assert label_table(ALL)[:UNKNOWN].tolist() == list(range(UNKNOWN))
    groups = [GROUPS[i] for i in label_table(GROUPED)[[0, class_ids()["liver"], class_ids()["rib_left_1"], BODY]]]
    assert groups == ["background", "organ", "bone", "surface"]
    assert label_table(ALL)[UNKNOWN] == label_table(GROUPED)[UNKNOWN] == IGNORED
    assert (num_labels(ALL), num_labels(GROUPED)) == (UNKNOWN, len(GROUPS))


@pytest.mark.parametrize("preset", SEGMENTER_PRESETS)
def test_a_preset_withholds_no_anatomy_and_has_a_channel_for_every_label_and_the_lesion(preset):
    config = SEGMENTER_PRESETS[preset]()
    assert config.train.unknown_anatomy == config.train.null_region == 0
    with torch.no_grad():
        logits = SegmenterNetwork(config)(torch.zeros(1, 1, 32, 32, 32))
    assert logits.shape == (1, num_labels(config) + 1, 32, 32, 32)


def _logits(labels, sure=20.0):
    return torch.nn.functional.one_hot(torch.as_tensor(labels), 4).movedim(-1, 0).float() * sure


def test_the_loss_is_nothing_for_the_truth_and_grows_with_what_is_wrong():
    labels = torch.zeros(4, 4, 4, dtype=torch.long)
    labels[:2], labels[2] = 1, 2
    wrong = labels.clone()
    wrong[0, 0] = 2
    worse = wrong.clone()
    worse[0] = 3
    losses = [float(anatomy_loss(_logits(found), labels)) for found in (labels, wrong, worse)]
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert losses[0] < losses[1] < losses[2]


def test_unknown_voxels_do_not_count():
    labels = torch.randint(0, 4, (4, 4, 4), generator=torch.Generator().manual_seed(0))
    hidden = labels.clone()
    hidden[0] = IGNORED
    one, other = _logits(labels, 2.0), _logits(labels, 2.0)
    other[:, 0] = torch.randn(4, 4, 4)
    assert float(anatomy_loss(one, hidden)) == pytest.approx(float(anatomy_loss(other, hidden)))
    assert float(anatomy_loss(one, torch.full_like(labels, IGNORED))) == 0


def test_a_case_without_lesion_labels_teaches_nothing_of_lesions():
    logits = torch.randn(4, 4, 4, requires_grad=True)
    lesion_loss(logits, torch.full((4, 4, 4), -1.0)).backward()
    assert (logits.grad == 0).all()
    mask = (torch.rand(4, 4, 4) > 0.7).float()
    assert float(lesion_loss((mask - 0.5) * 40, mask)) == pytest.approx(0, abs=1e-3)


def test_the_target_of_a_lesion_says_where_nobody_labelled_it():
    class Labelled:
        x0_ZYX, lesion_ZYX = np.zeros((2, 2, 2)), np.array([[[0, 1], [0, 0]]] * 2)

    class Unlabelled:
        x0_ZYX, lesion_ZYX = np.zeros((2, 2, 2)), None

    target = lesion_target([Labelled(), Unlabelled()], np.random.default_rng())
    assert target.shape == (2, 1, 2, 2, 2)
    assert target[0].unique().tolist() == [0, 1]
    assert target[1].unique().tolist() == [-1]


def test_it_learns_organs_it_was_never_shown(lake, trained):
    segmenter = open_segmenter(lake, trained.key)
    rows = read_manifest(lake, RECIPE).sealed(split="test").to_dict("records")
    assert rows
    for row in rows:
        stored = open_case(lake, row["key"])
        image, anatomy = stored.read_all("image")[19:], segmenter.network.labels[stored.read_all("anatomy")[19:]]
        found = segmenter.segment(WINDOWS["chest"].normalise(image)).anatomy
        organ = GROUPS.index("organ")
        overlap = ((found == organ) & (anatomy == organ)).sum() / ((found == organ) | (anatomy == organ)).sum()
        assert found.shape == image.shape
        assert overlap > 0.6


def test_the_same_data_and_config_are_not_trained_twice(lake, trained):
    again = train_segmenter(lake, RECIPE, small())
    assert again.unchanged
    assert again.key == trained.key
    data = read_manifest(lake, RECIPE).fingerprint
    assert segmenter_key(data, small(seed=1)) != trained.key == segmenter_key(data, small(checkpoint_every=7))


def test_its_seal_says_what_it_is_and_a_picture_shows_what_it_finds(lake, trained):
    seal = read_run(lake, trained.key)
    assert (seal.stage, seal.model, seal.step) == ("segmenter", None, 60)
    assert SegmenterConfig.model_validate(seal.config) == small()
    assert lake.read(f"{trained.key}/samples/step-00000060.png").startswith(b"\x89PNG")


def test_neither_kind_of_model_is_taken_for_the_other(lake, trained):
    with pytest.raises(UserError, match="no diffusion model but a segmenter"):
        load_network(lake, trained.key)
    train = tiny().train.replace(iterations=1, warmup=0, validation_samples=0, picture_every=0)
    base = pretrain(lake, RECIPE, tiny().replace(model=SMALL, train=train))
    with pytest.raises(UserError, match="no segmenter but a run of pretrain"):
        open_segmenter(lake, base.key)
