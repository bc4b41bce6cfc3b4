"""Builds the tiny lake: real stored cases with made-up contents."""

import shutil

import nibabel as nib
import numpy as np

from infra.lake import open_lake
from preprocessing.geometry import Geometry
from preprocessing.layout import Pyramid
from preprocessing.manifest import ManifestRow, commit
from preprocessing.pyramid import downsample2, downsample2_labels, resize_cube
from preprocessing.recipe import Recipe, SplitRule
from preprocessing.regions import RegionExtent
from preprocessing.store import CaseRecord, seal_case, write_case
from training.config import ModelConfig

RECIPE = Recipe(
    name="test", levels=2, thumbnail_size=8, chunk=8, shard=16, split=SplitRule(train=0.5, val=0.3), spacing_mm=4.0
)
SMALL = ModelConfig(
    patch=8,
    channels=(8, 16),
    attention=(False, True),
    norm_groups=4,
    head_channels=8,
    context_dim=8,
    anatomy_channels=4,
)


def volume(seed, shape=(41, 22, 25), lesion=True):
    """HU, anatomy and lesion of a noisy ellipsoid with an organ and a lesion in its upper part."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = y**2 + x**2
    anatomy = np.where(radius < 0.2, 5, np.where(radius < 0.7, 118, 0)).astype(np.uint8)
    image = np.where(anatomy == 5, 60, np.where(anatomy == 118, -20, -1000)) + rng.normal(0, 20, shape)
    mask = ((radius < 0.05) & (abs(z - 0.5) < 0.15)).astype(np.uint8)
    return np.rint(image + 100 * mask * lesion).astype(np.int16), anatomy, mask if lesion else None


def halves(array, halve):
    return array, halve(array)


def make_case(lake, name, seed, shape=(41, 22, 25), lesion=True, regions=None):
    """Store and seal one case; its manifest row."""
    image, anatomy, mask = volume(seed, shape, lesion)
    regions = regions or (
        RegionExtent(name="chest", z_start=19, z_stop=shape[0]),
        RegionExtent(name="abdomen", z_start=0, z_stop=24),
    )
    pyramid = Pyramid(
        geometry=Geometry(shape, (4.0, 4.0, 4.0)),
        image=halves(image, downsample2),
        anatomy=halves(anatomy, downsample2_labels),
        lesion=None if mask is None else halves(mask, downsample2_labels),
    )
    for region in regions:
        part = slice(region.z_start, region.z_stop)
        cubes = {"image": resize_cube(image[part], 8), "anatomy": resize_cube(anatomy[part], 8, labels=True)}
        if mask is not None:
            cubes["lesion"] = resize_cube(mask[part], 8, labels=True)
        pyramid.thumbnails[region.name] = cubes
    record = CaseRecord(
        source="test",
        case=name,
        patient=name,
        input="0" * 16,
        recipe=RECIPE.model_dump(mode="json"),
        recipe_fingerprint=RECIPE.fingerprint,
        regions=regions,
        anatomy="full",
        lesion=lesion,
        source_geometry=pyramid.geometry.to_dict(),
        geometry=pyramid.geometry.to_dict(),
    )
    key = f"ct/{RECIPE.fingerprint}/test/{name}/{'0' * 16}.zarr"
    write_case(lake, key, pyramid, record, RECIPE)
    return ManifestRow(
        source="test",
        case=name,
        patient=name,
        status="sealed",
        key=key,
        seal=seal_case(lake, key, record),
        regions=tuple(region.name for region in regions),
        anatomy="full",
        lesion=lesion,
    )


def make_lake(path, cases=10, lesion=lambda i: i % 2 == 0):
    """A lake of `cases` patients; the split decides by their names."""
    lake = open_lake(str(path))
    commit(lake, RECIPE, {"test": [make_case(lake, f"case-{i}", i, lesion=lesion(i)) for i in range(cases)]})
    return lake


def copy_data(lake, path):
    """A lake in a folder with the same cases and no runs."""
    shutil.copytree(lake.url, path / "lake", ignore=shutil.ignore_patterns("runs"))
    return open_lake(str(path / "lake"))


def write_ct(path, spacing=(4.0, 4.0, 4.0), codes="LPS", hu=None):
    """A made-up body as a NIfTI file with its axes (x, y, z) towards `codes`."""
    image = volume(3, lesion=False)[0] if hu is None else hu
    signs = np.array([{"R": 1, "A": 1, "S": 1}.get(code, -1) for code in codes])
    affine = np.diag([*(signs * np.array(spacing)[::-1]), 1])
    nib.save(nib.Nifti1Image(image.transpose(2, 1, 0), affine), path)
    return path
