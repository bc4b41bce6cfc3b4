"""A CT drawn from a map lies where the map lies, and shows what the model makes of it."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn
from training_worlds import RECIPE, SMALL

from infra.errors import UserError
from preprocessing.anatomy import class_ids
from preprocessing.geometry import Geometry
from preprocessing.regions import WINDOWS
from training.applications.anatomy_map import AnatomyMap, read_map
from training.applications.lesion_site import SITES, lesion_within, read_lesion, site_mask
from training.applications.synthesize import SynthesizeConfig, synthesize
from training.diffusion import Schedule
from training.models import Model

LIVER = class_ids()["liver"]
VALUES = {0: -1000, LIVER: 90, 118: -40}
LESION_HU = 200
CONFIG = SynthesizeConfig(steps=3, margin_voxels=1)


class Painter(nn.Module):
    """Draws every class in its HU, a lesion in its own, and remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.full((120,), -1.0), requires_grad=False)
        for class_, hu in VALUES.items():
            self.values[class_] = float(WINDOWS["abdomen"].normalise(np.array(hu)))
        self.lesion = float(WINDOWS["abdomen"].normalise(np.array(LESION_HU)))
        self.regions, self.calls = set(), 0

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        self.calls += 1
        self.regions |= set(conditions.region_B.tolist())
        x0 = self.values[conditions.anatomy_BZYX.long()][:, None]
        if control is not None:
            x0 = torch.where(control > 0, self.lesion, x0)
        return Schedule().predict_eps(x_B1ZYX, x0, t_B)


@pytest.fixture
def painter():
    """A model of the tiny lake's recipe (4 mm) with a network that paints."""
    network = Painter()
    return Model(network, SMALL, seal=None, recipe=RECIPE, url="painter")


def write_map(path, shape=(20, 24, 22), spacing=(4.0, 4.0, 4.0), codes="LPS"):
    """A body with a liver, of (z, y, x) voxels, written with its axes towards `codes`."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    ids = np.where(z**2 + y**2 + x**2 < 0.3, LIVER, np.where(y**2 + x**2 < 0.8, 118, 0)).astype(np.uint8)
    signs = np.array([1 if code in "RAS" else -1 for code in codes])
    image = nib.Nifti1Image(ids.transpose(2, 1, 0), np.diag([*(signs * np.array(spacing)[::-1]), 1]))
    nib.save(image, path)
    return ids


@pytest.mark.parametrize("shape", [(20, 24, 22), (5, 24, 6)])
def test_every_voxel_of_the_map_is_drawn_as_what_it_is(tmp_path, painter, shape):
    """Also where the map is smaller than a patch of 8 voxels."""
    ids = write_map(tmp_path / "map.nii", shape)
    heard = []
    drawn = synthesize(read_map(tmp_path / "map.nii", "abdomen", 4.0), painter, CONFIG, lambda *at: heard.append(at))
    window = WINDOWS["abdomen"]
    wanted = np.clip(np.select([ids == c for c in VALUES], list(VALUES.values())), window.low_hu, window.high_hu)
    np.testing.assert_allclose(drawn.hu_zyx, wanted, atol=1)
    assert drawn.hu_zyx.shape == shape
    assert painter.network.regions == {2}
    assert heard[-1] == (painter.network.calls, painter.network.calls)


@pytest.mark.parametrize("codes", ["LPS", "RAS"])
def test_the_result_lies_where_the_map_lies(tmp_path, painter, codes):
    write_map(tmp_path / "map.nii", spacing=(4.0, 2.0, 2.0), shape=(20, 48, 44), codes=codes)
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    drawn = synthesize(given, painter, CONFIG, lambda *_: None)
    assert drawn.geometry == given.geometry
    assert drawn.geometry.is_axis_aligned
    assert drawn.geometry.spacing_mm == (4.0, 4.0, 4.0)
    liver = np.argwhere(drawn.hu_zyx > 50).mean(0)
    source = nib.load(tmp_path / "map.nii")
    middle = source.affine[:3, :3] @ ((np.array(source.shape) - 1) / 2)
    np.testing.assert_allclose(drawn.geometry.world(liver)[::-1], middle * (-1, -1, 1), atol=3)


def test_a_lesion_is_drawn_in_its_mask_within_a_box_around_it(tmp_path, painter):
    write_map(tmp_path / "map.nii")
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    lesion = lesion_within(given, "liver", 7.0, seed=3)
    drawn = synthesize(given, painter, CONFIG, lambda *_: None, lesion)
    assert min(drawn.hu_zyx.shape) >= SMALL.patch
    assert max(drawn.hu_zyx.shape) < max(lesion.shape)
    found = np.argwhere(drawn.hu_zyx == LESION_HU)
    world = drawn.geometry.world(found)
    np.testing.assert_allclose(world, given.geometry.world(np.argwhere(lesion)), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_sampled_lesion_lies_in_its_organ(tmp_path, seed):
    ids = write_map(tmp_path / "map.nii")
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    lesion = lesion_within(given, "liver", 8.0, seed)
    assert lesion.any()
    assert (ids[lesion] == LIVER).all()
    assert lesion.sum() * 64 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.2)
    assert (lesion == lesion_within(given, "liver", 8.0, seed)).all()


def test_lymph_nodes_lie_in_the_tissue_beside_vessels_and_lung_is_all_its_lobes():
    ids = np.full((30, 40, 40), 118, np.uint8)
    ids[:, 20:22, 20:22] = class_ids()["trachea"]
    ids[:, 5:15, 5:15] = class_ids()["lung_upper_lobe_left"]
    ids[:, 5:15, 25:35] = class_ids()["lung_lower_lobe_right"]
    given = AnatomyMap(ids, Geometry(ids.shape, (4.0, 4.0, 4.0)), "chest")
    nodes = site_mask(given, "mediastinal_lymph_node")
    assert (ids[nodes] == 118).all()
    far = np.abs(np.argwhere(nodes)[:, 1:] - 20.5).max()
    assert 4 < far <= 5.5
    assert (site_mask(given, "lung") == np.isin(ids, [class_ids()[n] for n in SITES["lung"].classes])).all()
    assert (ids[lesion_within(given, "mediastinal_lymph_node", 4.0, 0)] == 118).all()


def test_a_lesion_can_be_given_in_the_frame_of_the_map(tmp_path):
    write_map(tmp_path / "map.nii", shape=(20, 48, 44), spacing=(4.0, 2.0, 2.0))
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    affine, marked = nib.load(tmp_path / "map.nii").affine, np.zeros((44, 48, 20), np.uint8)
    marked[20:24, 20:28, 8:12] = 1
    nib.save(nib.Nifti1Image(marked, affine), tmp_path / "lesion.nii")
    lesion = read_lesion(given, tmp_path / "lesion.nii")
    assert lesion.shape == given.ids_ZYX.shape
    assert lesion.sum() == marked.sum() / 4
    middle = given.geometry.world(np.argwhere(lesion).mean(0))[::-1] * (-1, -1, 1)
    np.testing.assert_allclose(middle, affine[:3, :3] @ np.argwhere(marked).mean(0) + affine[:3, 3], atol=1.01)
    nib.save(nib.Nifti1Image(np.zeros_like(marked), affine), tmp_path / "none.nii")
    with pytest.raises(UserError, match="marks nothing within the body"):
        read_lesion(given, tmp_path / "none.nii")


def test_a_preview_shows_all_of_the_map_in_one_patch(tmp_path, painter):
    ids = write_map(tmp_path / "map.nii", shape=(20, 24, 32))
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    drawn = synthesize(given, painter, CONFIG.replace(level="image"), lambda *_: None)
    assert drawn.hu_zyx.shape == (8, 8, 8)
    assert painter.network.calls == CONFIG.steps
    assert drawn.geometry.spacing_mm == (10.0, 12.0, 16.0)
    corners = [drawn.geometry.world(i) for i in ((-0.5, -0.5, -0.5), (7.5, 7.5, 7.5))]
    np.testing.assert_allclose(corners, [given.geometry.world(i) for i in ((-0.5, -0.5, -0.5), (19.5, 23.5, 31.5))])
    assert (drawn.hu_zyx > 50).mean() == pytest.approx((ids == LIVER).mean(), rel=0.3)


def test_a_lesion_that_cannot_lie_there_is_a_sentence(tmp_path):
    write_map(tmp_path / "map.nii")
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    with pytest.raises(UserError, match=r"'lung_left' is no class of the anatomy; there is lung, lung_"):
        lesion_within(given, "lung_left", 8.0, 0)
    with pytest.raises(UserError, match="the map shows no spleen"):
        lesion_within(given, "spleen", 8.0, 0)
    with pytest.raises(UserError, match="lung lies in the chest, and the map shows the abdomen"):
        lesion_within(given, "lung", 8.0, 0)
    with pytest.raises(UserError, match="no ball of 80 mm fits into the liver, which is"):
        lesion_within(given, "liver", 80.0, 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda ids: np.where(ids == 118, 0, ids), "names organs but no body"),
        (lambda ids: ids.astype(np.int16) * 3, "values run from 0 to 354; a map holds whole ids from 0 to 119"),
        (lambda ids: ids.astype(np.float32) + 0.5, "holds whole ids"),
    ],
)
def test_what_is_no_map_is_a_sentence(tmp_path, change, match):
    ids = write_map(tmp_path / "map.nii")
    nib.save(nib.Nifti1Image(change(ids).transpose(2, 1, 0), np.diag([-4.0, -4, 4, 1])), tmp_path / "odd.nii")
    with pytest.raises(UserError, match=match):
        read_map(tmp_path / "odd.nii", "abdomen", 4.0)
    with pytest.raises(UserError, match=r"none\.nii is not there"):
        read_map(tmp_path / "none.nii", "abdomen", 4.0)


def test_equal_seeds_draw_equal_volumes(tmp_path, painter):
    write_map(tmp_path / "map.nii")
    given = read_map(tmp_path / "map.nii", "abdomen", 4.0)
    blurred = replace(painter, network=Shrinks())
    one, same, other = (
        synthesize(given, blurred, CONFIG.replace(seed=seed), lambda *_: None).hu_zyx for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()


class Shrinks(nn.Module):
    """Keeps part of the noise, so that the seed shows in the result."""

    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        return x_B1ZYX * (t_B.float() / 1000).reshape(-1, 1, 1, 1, 1)
