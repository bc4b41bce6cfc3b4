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
COLUMNS = ("axial, real", "axial, drawn", "coronal, real", "coronal, drawn")


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


def picture_of(batch: Batch, drawn_BZYX: Tensor) -> bytes:
    """PNG bytes: a row per sample, its middle planes real and drawn, with the outlines of its anatomy."""
    height = len(drawn_BZYX) * (TILE + BAR + GAP) + BAR
    sheet = Image.new("RGB", (len(COLUMNS) * (TILE + GAP), height))
    write = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        write.text((column * (TILE + GAP) + GAP, 2), title, "white")
    for row, (real, drawn) in enumerate(zip(batch.x0_B1ZYX[:, 0], drawn_BZYX, strict=True)):
        top = BAR + row * (TILE + BAR + GAP)
        anatomy = batch.conditions.anatomy_BZYX[row].numpy()
        for column, volume in enumerate((real, drawn, real, drawn)):
            sheet.paste(_tile(volume.numpy(), anatomy, axis=column // 2), (column * (TILE + GAP), top))
        region, level = batch.groups[row]
        write.text((GAP, top + TILE), f"{region}, {level} level", "white")
    return encode_png(sheet)


def _tile(volume_ZYX: NDArray[np.float32], anatomy_ZYX: NDArray[np.uint8], axis: int) -> Image.Image:
    at = volume_ZYX.shape[axis] // 2
    image, labels = (np.take(array, at, axis) for array in (volume_ZYX, anatomy_ZYX))
    if axis:
        image, labels = image[::-1], labels[::-1]  # superior on top
    return draw_plane(AS_IT_IS, image, labels, np.zeros_like(labels), TILE / max(image.shape))
