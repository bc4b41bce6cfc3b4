"""Feature networks: the random one never changes; real ones are taken from files, by name, and never half."""

import io
import pickle

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet50
from task_worlds import make_context, small_config, store_case

from evaluation.cells import cell_keys, cells_of
from evaluation.config import Checkpoint
from evaluation.extractor_files import weights_digests, weights_path
from evaluation.extractors import extract_random, open_extractor
from evaluation.tasks import run_task
from infra.errors import UserError
from infra.lake import open_lake

MEDICAL, RADIOLOGY = "medicalnet-resnet50-3d", "radimagenet-resnet50-2.5d"
LAYOUT = {"feed_forward": False, "shortcut_type": "B", "bias_downsample": False}


def volumes(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 16, 20, 24)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder of weights."""
    monkeypatch.setenv("MEDDIFF_FEATURES", str(tmp_path))
    return tmp_path


def medicalnet(seed=0):
    """Fresh weights as MedicalNet's files hold them: of a parallel network, under `state_dict`."""
    torch.manual_seed(seed)
    network = resnet50(spatial_dims=3, n_input_channels=1, **LAYOUT)
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    return network.eval(), {"state_dict": weights | {"module.conv_seg.0.weight": torch.zeros(1)}}


def radimagenet():
    """Fresh weights as a bare backbone holds them: numbered stages."""
    torch.manual_seed(1)
    network = resnet50(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, **LAYOUT)
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    named = [(key.partition("."), value) for key, value in network.state_dict().items()]
    return network.eval(), {f"backbone.{numbers[first]}.{rest}": value for (first, _, rest), value in named}


def test_the_extractor_gives_one_vector_per_octant_and_does_not_change():
    x = np.random.default_rng(0).normal(0, 0.3, (2, 16, 16, 16)).astype(np.float32)
    features = extract_random(x)
    assert features.shape == (16, 32)
    np.testing.assert_array_equal(features, extract_random(x))
    assert features[0, :4] == pytest.approx([-0.02668, 0.29150, -0.00945, -0.00801], abs=1e-4)


def test_an_octant_sees_its_own_corner():
    x = np.zeros((2, 32, 32, 32), np.float32)
    x[1, :8, :8, :8] = 1
    before, after = extract_random(x[:1]), extract_random(x[1:])
    changed = np.abs(after - before).max(1) > 1e-6
    assert changed[0]
    assert not changed[-1]


@pytest.mark.parametrize("maker", [medicalnet, radimagenet])
def test_the_published_layouts_are_read_to_the_last_weight(maker):
    name = MEDICAL if maker is medicalnet else RADIOLOGY
    network, saved = maker()
    torch.save(saved, weights_path(name))
    extractor = open_extractor(name)
    assert extractor.name == f"{name} {weights_digests([name])[name][:8]}"
    x = volumes(2)
    found = extractor.extract(x)
    with torch.inference_mode():
        if name == MEDICAL:
            normed = torch.as_tensor((x[1] - x[1].mean()) / (x[1].std() + 1e-6))
            wanted, own = network(normed[None, None])[0], found[""][1]
        else:
            grey = torch.as_tensor((x[1, :, 7] + 1) / 2)
            colours = torch.stack([grey - mean for mean in (0.406, 0.456, 0.485)])
            wanted, own = network(colours[None])[0], found["coronal"][20 + 7]
    np.testing.assert_allclose(own, wanted.numpy(), atol=1e-4)
    assert own.shape == (2048,)


def test_every_slice_of_every_plane_is_a_sample():
    torch.save(radimagenet()[1], weights_path(RADIOLOGY))
    found = open_extractor(RADIOLOGY).extract(volumes(2))
    assert {plane: len(features) for plane, features in found.items()} == {"axial": 32, "coronal": 40, "sagittal": 48}


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_what_is_no_file_of_such_weights_is_refused_by_name(folder):
    path = weights_path(MEDICAL)
    with pytest.raises(UserError, match=rf"the weights of {MEDICAL} are not at .*MEDDIFF_FEATURES"):
        open_extractor(MEDICAL)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no weights that can be read"):
        open_extractor(MEDICAL)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="holds no weights that can be read"):
        open_extractor(MEDICAL)
    buffer = io.BytesIO()
    torch.save({"state_dict": Evil()}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="holds no weights that can be read"):
        open_extractor(MEDICAL)
    torch.save(radimagenet()[1], path)
    with pytest.raises(UserError, match="holds no weights of this network"):
        open_extractor(MEDICAL)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    return lake, [store_case(lake, i, split, False) for i, split in enumerate(("train", "train", "test", "test"))]


def config_with(*names):
    config = small_config()
    return config.replace(tasks=("synthesis",), synthesis=config.synthesis.replace(extractors=names))


def test_synthesis_names_whose_features_it_measured_and_why_others_are_missing(stored):
    torch.save(medicalnet()[1], weights_path(MEDICAL))
    rows = run_task("synthesis", make_context(stored, config_with(MEDICAL, RADIOLOGY))).rows
    digest = weights_digests([MEDICAL])[MEDICAL][:8]
    kid = {(row["metric"], row["method"]) for row in rows if row["metric"].startswith("kid[")}
    own = {(f"kid[{MEDICAL} {digest}]", method) for method in ("ours", "class-mean", "real")}
    assert kid == own | {(f"kid[{RADIOLOGY}]", "ours")}
    (reason,) = {row["reason"] for row in rows if row["metric"] == f"kid[{RADIOLOGY}]"}
    assert "put them there" in reason


def test_new_weights_are_another_cell(stored):
    context = make_context(stored, config_with(MEDICAL))
    cells = cells_of(context.config, [Checkpoint(base="runs/pretrain/b")], context.manifest)
    keys = [tuple(cell_keys(cells, context.config, context.manifest))]
    for seed in (0, 1):
        torch.save(medicalnet(seed)[1], weights_path(MEDICAL))
        keys.append(tuple(cell_keys(cells, context.config, context.manifest)))
    assert len(set(keys)) == 3
