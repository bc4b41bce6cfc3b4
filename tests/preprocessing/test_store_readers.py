"""Other people's readers open a sealed case as it is: all levels and labels, in the right place in millimetres."""

import numpy as np
import pytest
import zarr
from store_samples import GEOMETRY, KEY, RECIPE, made_pyramid, made_record

from infra.lake import Lake, open_lake
from preprocessing import layout
from preprocessing.store import seal_case, write_case

PYRAMID = made_pyramid()
LABELS = {"anatomy": PYRAMID.anatomy, "lesion": PYRAMID.lesion}
EVERY_IMAGE = [("", PYRAMID.image), *((f"labels/{name}", levels) for name, levels in LABELS.items())]
every_image = pytest.mark.parametrize(("path", "levels"), EVERY_IMAGE, ids=["image", *LABELS])


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    write_case(lake, KEY, PYRAMID, made_record(), RECIPE)
    seal_case(lake, KEY, made_record())
    return lake


def centres_mm(level: int) -> np.ndarray:
    """Where the first and the second voxel of a level lie, from the voxels of level 0 that they stand for."""
    n = 2**level
    block = np.argwhere(np.ones((n, n, n)))
    return np.array([GEOMETRY.world(block).mean(0), GEOMETRY.world(block + n).mean(0)])


def test_zarr_python_opens_the_case_by_its_path(lake):
    group = zarr.open_group(lake.url_of(KEY), mode="r")
    assert group.attrs["meddiff"]["case"] == "one"
    assert {name for name, _ in group.members()} == {"0", "1", "2", "labels", "companions", "thumbnails"}
    assert (group["companions/low_dose/0"][...] == PYRAMID.companions["low_dose"]).all()
    assert (group["thumbnails/chest/anatomy"][...] == PYRAMID.thumbnails["chest"]["anatomy"]).all()


@every_image
def test_zarr_python_reads_every_level_in_shards(lake, path, levels):
    group = zarr.open_group(lake.url_of(f"{KEY}/{path}"), mode="r")
    for level, array in enumerate(levels):
        stored = group[str(level)]
        assert (stored[...] == array).all()
        assert stored.metadata.dimension_names == ("z", "y", "x")
        assert stored.shards == layout.chunk_and_shard(array.shape, RECIPE)[1]
        assert stored.chunks == layout.chunk_and_shard(array.shape, RECIPE)[0]


@every_image
def test_the_metadata_places_every_voxel_in_lps_millimetres(lake, path, levels):
    ome = zarr.open_group(lake.url_of(f"{KEY}/{path}"), mode="r").attrs["ome"]
    assert ome["version"] == "0.5"
    (scale,) = ome["multiscales"]
    assert [(axis["name"], axis["type"], axis["unit"]) for axis in scale["axes"]] == [
        (name, "space", "millimeter") for name in "zyx"
    ]
    assert [axis["orientation"]["value"] for axis in scale["axes"]] == list(layout.ORIENTATION.values())
    assert [dataset["path"] for dataset in scale["datasets"]] == ["0", "1", "2"]
    for level, dataset in enumerate(scale["datasets"]):
        spacing, origin = dataset["coordinateTransformations"]
        first, second = centres_mm(level)
        np.testing.assert_allclose(origin["translation"], first)
        np.testing.assert_allclose(spacing["scale"], second - first)


def test_labels_name_their_values_and_their_image(lake):
    group = zarr.open_group(lake.url_of(f"{KEY}/labels"), mode="r")
    assert group.attrs["ome"]["labels"] == ["anatomy", "lesion"]
    names = {}
    for label in ("anatomy", "lesion"):
        about = group[label].attrs["ome"]["image-label"]
        names[label] = {entry["label-value"]: entry["name"] for entry in about["properties"]}
        assert about["source"] == {"image": "../../"}
        assert set(np.unique(group[f"{label}/0"][...])) <= {0, *names[label]}
    assert names["anatomy"][5] == "liver"
    assert names["lesion"] == {1: "lesion"}


@every_image
def test_ngff_zarr_opens_every_level_in_place(lake, path, levels):
    import ngff_zarr

    opened = ngff_zarr.from_ngff_zarr(lake.url_of(f"{KEY}/{path}").rstrip("/"), validate=True)
    assert len(opened.images) == len(levels)
    for level, (image, array) in enumerate(zip(opened.images, levels, strict=True)):
        first, second = centres_mm(level)
        assert (image.data.compute() == array).all()
        assert [image.translation[axis] for axis in "zyx"] == pytest.approx(first)
        assert [image.scale[axis] for axis in "zyx"] == pytest.approx(second - first)
        assert set(image.axes_units.values()) == {"millimeter"}


@every_image
def test_ngff_zarr_makes_an_itk_image_in_the_same_place(lake, path, levels):
    import ngff_zarr

    opened = ngff_zarr.from_ngff_zarr(lake.url_of(f"{KEY}/{path}").rstrip("/"))
    for level, array in enumerate(levels):
        itk = ngff_zarr.ngff_image_to_itk_image(opened.images[level], wasm=True)
        first, second = centres_mm(level)
        assert (np.asarray(itk.data) == array).all()
        assert list(itk.origin) == pytest.approx(first[::-1])
        assert list(itk.spacing) == pytest.approx((second - first)[::-1])
        assert np.array_equal(itk.direction, np.eye(3))


def test_ome_zarr_py_opens_every_level_and_label(lake):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    image, *others = list(Reader(parse_url(lake.url_of(KEY)))())
    labels = {node.zarr.basename(): node for node in others if node.data}
    assert set(labels) == set(LABELS)
    for node, levels in [(image, PYRAMID.image), *((labels[name], LABELS[name]) for name in LABELS)]:
        assert all((np.asarray(data) == array).all() for data, array in zip(node.data, levels, strict=True))
        assert [axis["name"] for axis in node.metadata["axes"]] == ["z", "y", "x"]
        for level, (scale, translation) in enumerate(node.metadata["coordinateTransformations"]):
            first, second = centres_mm(level)
            np.testing.assert_allclose(translation["translation"], first)
            np.testing.assert_allclose(scale["scale"], second - first)


def test_ome_zarr_models_validates_the_metadata(lake):
    from ome_zarr_models.v05 import Image, ImageLabel

    Image.from_zarr(zarr.open_group(lake.url_of(KEY), mode="r"))
    for label in LABELS:
        ImageLabel.from_zarr(zarr.open_group(lake.url_of(f"{KEY}/labels/{label}"), mode="r"))
