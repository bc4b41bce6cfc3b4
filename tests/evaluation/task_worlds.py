"""Small made-up CTs of a body with a liver, stored for real, and a network that remembers what it was told."""

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from evaluation.config import LesionConfig, tiny
from evaluation.tasks.context import TaskContext
from preprocessing.anatomy import BODY, class_ids
from preprocessing.geometry import Geometry
from preprocessing.layout import Pyramid
from preprocessing.manifest import Manifest, ManifestRow
from preprocessing.manifest_table import to_frame
from preprocessing.recipe import demo
from preprocessing.regions import RegionExtent
from preprocessing.store import CaseRecord, seal_case, write_case
from training.config import ModelConfig

LIVER = class_ids()["liver"]
SHAPE = (24, 40, 40)
RECIPE = demo().replace(chunk=16, shard=32, levels=1, thumbnail_size=8)
MODEL = ModelConfig(patch=8, channels=(8,), attention=(False,), norm_groups=4, head_channels=4)


class Spy(nn.Module):
    """Shrinks towards zero as for x_0 ~ N(0, .3²) and remembers everything it was told."""

    def __init__(self, controlled=False):
        super().__init__()
        self.controlled, self.calls = controlled, []

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        assert (control is not None) == self.controlled
        self.calls.append((x_B1ZYX.clone(), t_B.clone(), conditions, control))
        share = (t_B.float() / 1000).reshape(-1, 1, 1, 1, 1)
        return x_B1ZYX * share

    @property
    def anatomy_seen(self):
        return torch.cat([c.anatomy_BZYX.flatten() for _, _, c, _ in self.calls])


def volume(number, lesion, contrast_hu=-60.0):
    """HU, noise-free HU, anatomy and lesion of one case: a body with a liver that may hold a lesion."""
    rng = np.random.default_rng(number)
    z, y, x = np.indices(SHAPE)
    body = ((y - 20) / 17) ** 2 + ((x - 20) / 18) ** 2 < 1
    liver = (z - 12) ** 2 / 64 + (y - 20) ** 2 / 64 + (x - 18) ** 2 / 100 < 1
    spot = (z - 12) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 <= 6
    anatomy = np.where(liver, LIVER, np.where(body, BODY, 0)).astype(np.uint8)
    clean = np.where(liver, 100, np.where(body, 20, -1000)).astype(float) + 10 * np.sin(z / 3)
    mask = (spot & lesion).astype(np.uint8)
    clean += contrast_hu * ndimage.gaussian_filter(mask.astype(float), 0.5)
    noisy = clean + 10 * rng.standard_normal(SHAPE)
    low_dose = clean + 40 * rng.standard_normal(SHAPE)
    return {
        "image": noisy.astype(np.int16),
        "noise_free": clean.astype(np.int16),
        "low_dose": low_dose.astype(np.int16),
        "anatomy": anatomy,
        "lesion": mask,
    }


def store_case(lake, number, split, lesion, anatomy="full", contrast_hu=-60.0):
    arrays = volume(number, lesion, contrast_hu)
    geometry = Geometry(SHAPE, (4.0, 4.0, 4.0))
    extents = (RegionExtent(name="abdomen", z_start=0, z_stop=20), RegionExtent(name="chest", z_start=4, z_stop=24))
    names = ("image", "anatomy", "lesion") if lesion else ("image", "anatomy")
    thumbnails = {
        extent.name: {name: arrays[name][extent.z_start : extent.z_stop][::3, ::5, ::5][:7, :8, :8] for name in names}
        for extent in extents
    }
    cube = {r: {n: np.pad(a, ((0, 8 - a.shape[0]), (0, 0), (0, 0)), mode="edge") for n, a in t.items()}
            for r, t in thumbnails.items()}  # fmt: skip
    record = CaseRecord(
        source="made-up", case=f"case-{number}", patient=f"patient-{number}", input=f"{number:016x}",
        recipe=RECIPE.model_dump(mode="json"), recipe_fingerprint=RECIPE.fingerprint, regions=extents, anatomy=anatomy,
        lesion=lesion, source_geometry=geometry.to_dict(), geometry=geometry.to_dict(),
        companions=("noise_free", "low_dose"),
    )  # fmt: skip
    pyramid = Pyramid(
        geometry=geometry, image=(arrays["image"],), anatomy=(arrays["anatomy"],),
        lesion=(arrays["lesion"],) if lesion else None,
        companions={name: arrays[name] for name in record.companions}, thumbnails=cube,
    )  # fmt: skip
    key = f"ct/{RECIPE.fingerprint}/made-up/case-{number}/{record.input}.zarr"
    write_case(lake, key, pyramid, record, RECIPE)
    seal = seal_case(lake, key, record)
    return ManifestRow(
        source="made-up", case=record.case, patient=record.patient, status="sealed", input=record.input, key=key,
        seal=seal, regions=("chest", "abdomen"), anatomy=anatomy, lesion=lesion, split=split,
        companions=record.companions,
    )  # fmt: skip


def small_config(**changes):
    config = tiny()
    cube, lesion = (8, 8, 8), LesionConfig(field_zyx=(8, 16, 16), cases=2, steps=3, jump_length=1, jump_repeats=2)
    return config.replace(
        regions=("chest", "abdomen"),
        precision="fp32",
        synthesis=config.synthesis.replace(steps=2),
        denoising=config.denoising.replace(
            field_zyx=(8, 16, 16), cases=2, restore_steps=2, sample_steps=2, companions=("low_dose",), sigmas=(0.15,)
        ),
        anomaly=config.anomaly.replace(field_zyx=(16, 24, 24), steps=2),
        superresolution=config.superresolution.replace(field_zyx=cube, cases=1, steps=2),
        lesion_generation=lesion,
        lesion_inpainting=lesion,
        **changes,
    )


def make_context(stored, config=None, rows=None, controls=("superresolution", "lesion")):
    lake, all_rows = stored
    return TaskContext(
        lake=lake,
        manifest=Manifest(to_frame(rows if rows is not None else all_rows), 1),
        recipe=RECIPE,
        base=Spy(),
        controls={name: Spy(controlled=True) for name in controls},
        model=MODEL,
        config=config or small_config(),
        checkpoint="tiny",
    )


def value(rows, **wanted):
    found = [r["value"] for r in rows if all(r[k] == v for k, v in wanted.items())]
    assert found, wanted
    return float(np.mean(found))
