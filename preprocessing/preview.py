"""Previews: one PNG per case with three planes and outlines, one contact sheet per source.

They lie at `previews/<recipe>/<source>/<case>-<input>.png`, outside the case and its seal, for people only: a head that
is not defaced can be recognised, so previews stay in the lake and are never published.
"""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import image as png
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.anatomy import BODY
from preprocessing.layout import Pyramid
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS, RegionExtent, Window

WIDE = Window(1400, -300)
TALLEST = 256
LESION = np.array([1.0, 0.25, 0.2])
SHEET_CASES = 60
SHEET_COLUMNS = 5


def preview_key(recipe: Recipe, source: str, case: str, input_: str) -> str:
    """Where a case's preview lies in the lake."""
    return f"previews/{recipe.fingerprint}/{source}/{case}-{input_}.png"


def sheet_key(recipe: Recipe, source: str) -> str:
    """Where a source's contact sheet lies in the lake."""
    return f"previews/{recipe.fingerprint}/{source}.png"


def preview(pyramid: Pyramid, regions: Sequence[RegionExtent]) -> bytes:
    """PNG bytes: axial, coronal and sagittal plane side by side, organs tinted at their borders, lesions in red."""
    level = next((k for k, a in enumerate(pyramid.image) if max(a.shape) <= TALLEST), len(pyramid.image) - 1)
    anatomy = pyramid.anatomy[level]
    lesion = pyramid.lesion[level] if pyramid.lesion else np.zeros_like(anatomy)
    window = WINDOWS[regions[0].name] if len(regions) == 1 else WIDE
    grey = (window.normalise(pyramid.image[level]) + 1) / 2
    planes = [
        _plane(*(np.rollaxis(array, axis)[at] for array in (grey, anatomy, lesion)), flip=axis > 0)
        for axis, at in enumerate(_centre(anatomy, lesion))
    ]
    height = max(plane.shape[0] for plane in planes)
    tiles = [np.pad(plane, ((0, height - plane.shape[0]), (0, 4), (0, 0))) for plane in planes]
    return _encode(np.concatenate(tiles, 1))


def contact_sheet(title: str, previews: Sequence[tuple[str, bytes]]) -> bytes:
    """PNG bytes: the first previews of a source in a grid, each under its case's name."""
    from matplotlib.figure import Figure  # a worker that converts one case never needs it

    shown = previews[:SHEET_CASES]
    rows = -(-len(shown) // SHEET_COLUMNS)
    figure = Figure(figsize=(4 * SHEET_COLUMNS, 1.7 * rows + 0.5), dpi=60, facecolor="black")
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.6 / (1.7 * rows + 0.5), wspace=0.03, hspace=0.2
    )
    figure.suptitle(f"{title}: {len(shown)} of {len(previews)} cases", color="white")
    for number, (name, data) in enumerate(shown):
        axes = figure.add_subplot(rows, SHEET_COLUMNS, number + 1)
        axes.imshow(png.imread(io.BytesIO(data)))
        axes.set_title(name, color="white", fontsize=8)
        axes.axis("off")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black")
    return stream.getvalue()


def _centre(anatomy: NDArray[np.uint8], lesion: NDArray[np.uint8]) -> list[int]:
    """The voxel that the planes go through: the slice with most lesion, else the middle of the body."""
    mask = lesion if lesion.any() else anatomy
    if not mask.any():
        return [n // 2 for n in mask.shape]
    counts = [np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    if lesion.any():
        return [int(c.argmax()) for c in counts]
    return [int(np.average(np.arange(len(c)), weights=c)) for c in counts]


def _plane(grey: NDArray, anatomy: NDArray[np.uint8], lesion: NDArray[np.uint8], *, flip: bool) -> NDArray:
    picture = np.repeat(grey[..., None], 3, -1)
    border = (anatomy != ndimage.grey_erosion(anatomy, (3, 3))) & (anatomy > 0)
    picture[border] = 0.4 * picture[border] + 0.6 * _colours()[anatomy[border]]
    picture[(lesion > 0) ^ ndimage.binary_erosion(lesion > 0)] = LESION
    return picture[::-1] if flip else picture  # superior on top


def _colours() -> NDArray:
    """A colour per class id: hues by the golden angle, grey for body and unknown."""
    hue = (np.arange(256) * 0.618034 % 1)[:, None] + np.array([0, 1 / 3, 2 / 3])
    colours = 0.5 + 0.5 * np.cos(2 * np.pi * hue)
    colours[BODY:] = 0.6
    return colours


def _encode(picture: NDArray) -> bytes:
    stream = io.BytesIO()
    png.imsave(stream, np.clip(picture * 255, 0, 255).astype(np.uint8), format="png")
    return stream.getvalue()
