"""Pictures of a training: what the network draws from noise for the conditions of fixed validation samples."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from preprocessing.preview import draw_plane, encode_png
from preprocessing.regions import Window
from training.config import TrainConfig
from training.data import Batch
from training.diffusion import Schedule
from training.precision import autocast
from training.sampling import ddim, uniform_timesteps

STEPS = 25
AS_IT_IS = Window(2, 0)  # [-1, 1] to [-1, 1]
TILE = 192  # pixels of the edge of a plane
GAP, BAR = 4, 18
PLANES = ("axial", "coronal")


@torch.no_grad()
def draw_examples(
    network: nn.Module, batch: Batch, schedule: Schedule, config: TrainConfig, device: torch.device
) -> Tensor:
    """x̂_0 (B, Z, Y, X) on [-1, 1], by DDIM in 25 steps from the noise and with the conditions of a batch."""
    network.eval()
    there = batch.to(device)

    def predict(x_BZYX: Tensor, t: int | Tensor) -> Tensor:
        t_B = torch.as_tensor(t, device=device).expand(len(x_BZYX))
        with autocast(config.precision, device):
            return network(x_BZYX[:, None], t_B, there.conditions, there.control_BCZYX)[:, 0]

    start = uniform_timesteps(schedule.timesteps - 1, STEPS)
    return ddim(predict, there.noise_B1ZYX[:, 0], start, schedule).cpu()


def picture_of(batch: Batch, made_BZYX: Tensor, anatomy_BZYX: Tensor | None = None, made: str = "drawn") -> bytes:
    """PNG bytes: a row per sample, its middle planes real and as they were `made`, with the outlines of anatomy.

    Those of `made` are of `anatomy_BZYX`, where it is given; else of the sample's own.
    """
    columns = [f"{plane}, {what}" for plane in PLANES for what in ("real", made)]
    height = len(made_BZYX) * (TILE + BAR + GAP) + BAR
    sheet = Image.new("RGB", (len(columns) * (TILE + GAP), height))
    write = ImageDraw.Draw(sheet)
    given = batch.conditions.anatomy_BZYX
    named = given if anatomy_BZYX is None else anatomy_BZYX
    for column, title in enumerate(columns):
        write.text((column * (TILE + GAP) + GAP, 2), title, "white")
    for row, shown in enumerate(zip(batch.x0_B1ZYX[:, 0], made_BZYX, strict=True)):
        top = BAR + row * (TILE + BAR + GAP)
        outlines = (given[row], named[row])
        for column in range(len(columns)):
            volume, anatomy = shown[column % 2].numpy(), outlines[column % 2].numpy().astype(np.uint8)
            sheet.paste(_tile(volume, anatomy, axis=column // 2), (column * (TILE + GAP), top))
        region, level = batch.groups[row]
        write.text((GAP, top + TILE), f"{region}, {level} level", "white")
    return encode_png(sheet)


def _tile(volume_ZYX: NDArray[np.float32], anatomy_ZYX: NDArray[np.uint8], axis: int) -> Image.Image:
    at = volume_ZYX.shape[axis] // 2
    image, labels = (np.take(array, at, axis) for array in (volume_ZYX, anatomy_ZYX))
    if axis:
        image, labels = image[::-1], labels[::-1]  # superior on top
    return draw_plane(AS_IT_IS, image, labels, np.zeros_like(labels), TILE / max(image.shape))
