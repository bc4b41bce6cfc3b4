"""What denoising and drawing a large volume take of memory, in bytes a voxel: run as a process of its own.

The network answers at once and costs nothing, as it sees a window at a time; everything else is real.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from process_memory import peak_bytes, resident_bytes
from torch import nn
from training_worlds import RECIPE, SMALL, make_lake, volume, write_ct

from preprocessing.geometry import Geometry
from training.applications.anatomy_map import AnatomyMap
from training.applications.denoise import DenoiseConfig, denoise
from training.applications.scan import open_scan, write_result
from training.applications.synthesize import SynthesizeConfig, synthesize
from training.config import PretrainConfig, TrainConfig
from training.launch import pretrain
from training.models import Model, open_model

SHAPE = (160, 256, 256)
TRAIN = TrainConfig(iterations=1, batch_size=1, accumulate=1, validation_samples=0, picture_every=0)


class Silent(nn.Module):
    """A network without an opinion."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter()

    def forward(self, x_B1ZYX, t_B, conditions, control=None):
        return 0.1 * x_B1ZYX


def silent_model(folder: Path) -> Model:
    lake = make_lake(folder / "lake")
    run = pretrain(lake, RECIPE, PretrainConfig(preset="tiny", model=SMALL, train=TRAIN))
    model = open_model(f"{lake.url}/{run.key}")
    return replace(model, network=Silent(), config=model.config.replace(patch=64))


def nothing(done, total):
    """No one listens."""


def denoise_file(folder: Path, model: Model) -> None:
    with open_scan(folder / "ct.nii.gz", model.recipe.replace(chunk=64, shard=128), "chest") as scan:
        done = denoise(scan, model, DenoiseConfig(estimate="restore", steps=3), nothing)
        write_result(scan, done.hu_zyx, folder / "out.nii.gz", "a test")


def draw(folder: Path, model: Model) -> None:
    ids = np.full(SHAPE, 118, np.uint8)
    synthesize(AnatomyMap(ids, Geometry(SHAPE, (4.0, 4.0, 4.0)), "chest"), model, SynthesizeConfig(steps=3), nothing)


def main(folder: Path) -> None:
    """Prints what each took."""
    model = silent_model(folder)
    write_ct(folder / "ct.nii.gz", hu=volume(3, SHAPE, lesion=False)[0])
    taken = {}
    for what in (denoise_file, draw):
        before = resident_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        what(folder, model)
        taken[what.__name__] = (peak_bytes() - before) / np.prod(SHAPE)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
