"""Axial slices for the report's sliders: of each panel one image in which they lie below one another.

At most MOST slices of a volume, evenly apart, are drawn at EDGE pixels of width and height or less: grey as lossy
WebP, colour and label maps without loss, because lossy WebP halves the resolution of colours.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from evaluation.pictures import GREY, LABELS, scale_of

if TYPE_CHECKING:
    from evaluation.tasks.context import Panel, Picture

MOST, EDGE = 48, 128
QUALITY = 70  # of grey WebP: on noisy slices 1.6 % of the scale off on average


class Slice(NamedTuple):
    """One axial slice: its index, what is said of it, and how far below the volume's top it lies, as a share."""

    index: int
    label: str
    share: float


def slices_of(picture: "Picture") -> list[Slice]:
    """The slices that a picture's slider shows, from the feet up; none where panels differ in number or have only one.

    One of them is the slice of the picture's axial plane.
    """
    sizes = {np.shape(panel.image)[0] for panel in picture.panels}
    size = sizes.pop() if len(sizes) == 1 else 1
    if size < 2:
        return []
    return [Slice(k, _label(k, size, picture.z_mm), (size - k - 0.5) / size) for k in chosen(size, start_of(picture))]


def start_of(picture: "Picture") -> int:
    """The index of the picture's axial plane."""
    return picture.centre_zyx[0] if picture.centre_zyx else np.shape(picture.panels[0].image)[0] // 2


def _label(index: int, size: int, z_mm: tuple[float, float] | None) -> str:
    place = f", z = {z_mm[0] + index * z_mm[1]:.0f} mm".replace("-", "−") if z_mm else ""
    return f"slice {index + 1} of {size}{place}"


def chosen(size: int, start: int, most: int = MOST) -> list[int]:
    """At most `most` of `size` indices, evenly apart, first and last among them; `start` stands for its nearest."""
    spread = np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int))
    spread[np.argmin(np.abs(spread - start))] = start
    return spread.tolist()


def strip_of_slices(panel: "Panel", indices: Sequence[int]) -> bytes:
    """The slices of a panel below one another, WebP; equal panels give equal bytes."""
    scale, image = scale_of(panel), np.asarray(panel.image)[list(indices)]
    shrunk = _shrunk(image, exact=scale.colours == LABELS)
    tall = scale.paint(shrunk.reshape(-1, shrunk.shape[-1]))
    buffer = io.BytesIO()
    options = {"quality": QUALITY} if scale.colours == GREY else {"lossless": True}
    imsave(buffer, np.ascontiguousarray(tall), format="webp", pil_kwargs=options | {"method": 4})
    return buffer.getvalue()


def _shrunk(image_NYX: NDArray, exact: bool) -> NDArray:
    """Slices of at most EDGE pixels: means of blocks, or for labels every n-th pixel."""
    height, width = image_NYX.shape[1:]
    factor = math.ceil(max(height, width) / EDGE)
    cut = image_NYX[:, : height // factor * factor, : width // factor * factor]
    if factor == 1 or exact:
        return cut[:, ::factor, ::factor]
    blocks = np.nan_to_num(cut.astype(np.float32))
    return blocks.reshape(len(cut), height // factor, factor, width // factor, factor).mean((2, 4))
