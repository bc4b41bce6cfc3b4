"""RPLHR-CT as Zenodo serves it: one zip a part, two reconstructions of each scan, perhaps fractions instead of HU."""

import numpy as np
import pytest
from miniatures import RECIPE, ingested, rows, scan, served, statuses, zipped

from preprocessing.geometry import Geometry
from preprocessing.sources.registry import make_source
from preprocessing.store import open_case


def thick(patient: int) -> bytes:
    """The scan in slices three times as far apart, each the mean of three."""
    thin = scan("chest", patient)
    count = len(thin.hu) // 3
    means = thin.hu[: 3 * count].reshape(count, 3, *thin.hu.shape[1:]).mean(axis=1).round().astype(np.int16)
    grid = thin.geometry
    spacing = (3 * grid.spacing_mm[0], *grid.spacing_mm[1:])
    geometry = Geometry.from_dict(
        grid.to_dict() | {"shape": means.shape, "spacing_mm": spacing, "origin_mm": grid.world((1, 0, 0))}
    )
    return type(thin)(means, means, means, geometry).nifti()


def zips(**images: bytes) -> dict[str, bytes]:
    files = {}
    for number, part in enumerate(("train", "val", "test")):
        image = images.get(part, scan("chest", number).nifti())
        members = {f"{part}/1mm/CT0000{number}.nii.gz": image, f"{part}/5mm/CT0000{number}.nii.gz": thick(number)}
        files[f"{part}.zip"] = zipped(members)
    return files


def test_thin_slices_are_the_image_and_thick_ones_its_companion(server, lake, settings):
    options = served(server, zips())
    ingested(lake, make_source("rplhr-ct", **options), settings)
    found = rows(lake)
    assert statuses(found.values()) == dict.fromkeys(["test-CT00002", "train-CT00000", "val-CT00001"], "sealed")
    assert {row.case: row.split for row in found.values()} == {
        "test-CT00002": "test",
        "train-CT00000": "train",
        "val-CT00001": "val",
    }
    assert {row.companions for row in found.values()} == {("thick",)}
    stored = open_case(lake, found["test-CT00002"].key)
    image, other = (stored.read_all(name).astype(int) for name in ("image", "thick"))
    assert np.median(np.abs(image - other)[image > -500]) < RECIPE.spacing_mm * 10
    assert not np.array_equal(image, other)

    asked = len(server.log)
    again = ingested(lake, make_source("rplhr-ct", **options), settings)
    assert (again.converted, again.unchanged) == (0, 3)
    assert len(server.log) == asked


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1)])
def test_fractions_are_refused_with_their_values(server, lake, settings, low, high):
    chest = scan("chest", 0)
    share = (np.clip(chest.hu, -1024, 2048) + 1024) / 3072
    fractions = chest.nifti((low + share * (high - low)).astype(np.float32))
    ingested(lake, make_source("rplhr-ct", **served(server, zips(train=fractions))), settings)
    reason = statuses(rows(lake).values())["train-CT00000"]
    assert f"values run from {low}" in reason
    assert "fractions" in reason
    assert "in HU" in reason
