"""Small made-up volumes, cases and sources that several tests of the store share."""

import errno
import os
from pathlib import Path

import numpy as np
import SimpleITK

from infra.lake import Lake
from preprocessing.case import Case, CaseError
from preprocessing.geometry import Geometry
from preprocessing.layout import Pyramid
from preprocessing.pyramid import downsample2, downsample2_labels
from preprocessing.recipe import Recipe
from preprocessing.regions import RegionExtent
from preprocessing.sources.base import SourceInfo
from preprocessing.store import CaseRecord

RECIPE = Recipe(name="test", spacing_mm=4.0, thumbnail_size=8, chunk=16, shard=32)
SHAPE = (37, 44, 50)
GEOMETRY = Geometry(SHAPE, (4.0, 4.0, 4.0), (-310.5, -88.0, 12.25))
KEY = f"ct/{RECIPE.fingerprint}/made/one/0123456789abcdef.zarr"


def made_image(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A noisy ellipsoid of soft tissue in air, int16 HU; integers only, so that every machine makes the same one."""
    z, y, x = np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij")
    depth, height, width = shape
    rng = np.random.default_rng(seed)
    inside = (
        z**2 * height**2 * width**2 + 4 * (y**2 * width**2 + x**2 * height**2) * depth**2
        < 3 * (depth * height * width) ** 2 // 4
    )
    lumps = np.kron(rng.integers(-60, 60, [n // 6 + 1 for n in shape]), np.ones((6, 6, 6), int))
    tissue = 40 + lumps[:depth, :height, :width] + rng.integers(-5, 5, shape)
    return np.where(inside, tissue, -1000 + rng.integers(-5, 5, shape)).astype(np.int16)


def made_pyramid(seed: int = 0) -> Pyramid:
    """Three levels with anatomy, lesion, one companion and one region's thumbnails."""
    image = made_image(seed)
    anatomy = np.where(image > -500, 118, 0).astype(np.uint8)
    anatomy[10:20, 15:25, 20:30] = 5
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[12:15, 18:21, 22:25] = 1
    cut = slice(0, 8)
    return Pyramid(
        geometry=GEOMETRY,
        image=_levels(image, downsample2),
        anatomy=_levels(anatomy, downsample2_labels),
        lesion=_levels(lesion, downsample2_labels),
        companions={"low_dose": image + np.int16(3)},
        thumbnails={"chest": {"image": image[cut, cut, cut], "anatomy": anatomy[cut, cut, cut]}},
    )


def _levels(array, halve):
    return array, halve(array), halve(halve(array))


def made_record(**changes) -> CaseRecord:
    values = {
        "source": "made",
        "case": "one",
        "patient": "p1",
        "input": "0123456789abcdef",
        "recipe": RECIPE.model_dump(mode="json"),
        "recipe_fingerprint": RECIPE.fingerprint,
        "regions": (RegionExtent(name="chest", z_start=0, z_stop=37),),
        "source_geometry": GEOMETRY.to_dict(),
        "geometry": GEOMETRY.to_dict(),
        "companions": ("low_dose",),
    }
    return CaseRecord.model_validate(values | changes)


def write_image(path: Path, array: np.ndarray) -> None:
    """An image file on the samples' grid, written by ITK."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(GEOMETRY.spacing_mm[::-1])
    image.SetOrigin(GEOMETRY.origin_mm[::-1])
    SimpleITK.WriteImage(image, str(path))


class MadeSource:
    """A source of made-up cases in NRRD files; it reads them in place, as a folder does."""

    def __init__(self, path: Path, patients: int = 3, name: str = "made") -> None:
        self.info = SourceInfo(name=name, title="made up")
        self.path = path
        self.patients = patients
        self.changes: dict[int, dict] = {}

    def cases(self, lake: Lake | None = None, progress=None) -> list[Case]:
        return [self.case(n) for n in range(self.patients)]

    def is_listed(self, lake: Lake | None) -> bool:
        return True

    def finish(self, lake: Lake) -> None:
        pass

    def case(self, number: int) -> Case:
        path = self.path / f"{self.info.name}-{number}.nrrd"
        if not path.exists():
            write_image(path, made_image(number))
        values = {"source": self.info.name, "id": f"case-{number}", "patient": f"patient-{number}"}
        values |= {"image": (str(path),), "version": "v1", "licence": "CC0-1.0"}
        return Case.model_validate(values | self.changes.get(number, {}))

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        if case.version == "kill":
            os._exit(1)
        if case.version == "gone":
            raise CaseError(f"{case.id} is not there any more")
        if case.version == "strange":
            raise ZeroDivisionError("nobody expects this")
        if case.version == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return case
