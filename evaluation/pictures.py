"""Pictures a person can judge: three planes of each panel, in a window or on a scale of its own, as PNG.

Volumes are z,y,x in LPS with z upwards. Planes are shown the radiological way: head up, the patient's right on the
image's left, in the axial and coronal planes; face to the left in the sagittal plane.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from evaluation.tasks.context import Panel, Picture

PLANES = ("axial", "coronal", "sagittal")
SIGNED, UNSIGNED, GREY, LABELS = "berlin", "magma", "gray", "labels"
EDGE, GAP, HEAD, FOOT = 200, 4, 46, 18  # pixels


@dataclass(frozen=True)
class Scale:
    """What a panel's shades mean: its colour map from `low` to `high`."""

    low: float
    high: float
    colours: str

    @property
    def ticks(self) -> tuple[str, ...]:
        """Labels of the ends and the middle; none for a label map."""
        if self.colours == LABELS:
            return ()
        middle = (self.low + self.high) / 2
        return _tick(self.low), _tick(middle), _tick(self.high)

    @property
    def gradient(self) -> str:
        """The colour map as CSS colour stops; "" for a label map."""
        if self.colours == LABELS:
            return ""
        shades = matplotlib.colormaps[self.colours](np.linspace(0, 1, 9), bytes=True)[:, :3]
        return ", ".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in shades)

    def paint(self, image: NDArray) -> NDArray[np.uint8]:
        """An image as RGB, (…, 3) uint8; values beyond the ends take the ends' colour, NaN is black."""
        if self.colours == LABELS:
            return label_colours()[np.asarray(image, np.intp)]
        share = np.nan_to_num((np.asarray(image, np.float32) - self.low) / (self.high - self.low))
        return matplotlib.colormaps[self.colours](np.clip(share, 0, 1), bytes=True)[..., :3]


def _tick(value: float) -> str:
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")


def scale_of(panel: "Panel") -> Scale:
    """Grey over a window; colour over a window centred on 0 (a difference) or, without one, over the panel's range.

    Whole numbers between 0 and 255 are label ids.
    """
    if panel.window is not None:
        return Scale(panel.window.low_hu, panel.window.high_hu, GREY if panel.window.level_hu else SIGNED)
    values = np.nan_to_num(np.asarray(panel.image, np.float32))
    if values.min() >= 0 and 1 < values.max() < 256 and np.array_equal(values, np.round(values)):
        return Scale(0, 255, LABELS)
    reach = nice(float(np.percentile(np.abs(values), 99.5)) or float(np.max(np.abs(values))))
    return Scale(-reach, reach, SIGNED) if values.min() < 0 else Scale(0.0, reach, UNSIGNED)


@cache
def label_colours() -> NDArray[np.uint8]:
    """256 colours for label ids, (256, 3): neighbours in id differ in hue, 0 is black."""
    ids = np.arange(256)
    shades = np.stack([ids * 0.618034 % 1, 0.35 + 0.3 * (ids % 3) / 2, 0.55 + 0.4 * (ids % 4) / 3], axis=-1)
    colours = np.round(hsv_to_rgb(shades) * 255).astype(np.uint8)
    colours[0] = 0
    return colours


def nice(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten at or above a positive value; 1 for 0 or NaN."""
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def plane(volume_ZYX: NDArray, name: str, centre_zyx: Sequence[int] | None = None) -> NDArray:
    """One plane through the centre, ready to show: row 0 on top, column 0 on the left."""
    z, y, x = centre_zyx or tuple(size // 2 for size in volume_ZYX.shape)
    if name == "axial":
        return volume_ZYX[z]
    return volume_ZYX[::-1, y, :] if name == "coronal" else volume_ZYX[::-1, :, x]


def centre_of_interest(values_ZYX: NDArray) -> tuple[int, int, int]:
    """The centre of mass of an array's magnitude: where to look at a change or a map; its middle where all is 0."""
    size = np.abs(np.nan_to_num(np.asarray(values_ZYX, np.float32)))
    if not size.any():
        size = np.ones_like(size)
    z, y, x = (round(float(c)) for c in ndimage.center_of_mass(size))
    return z, y, x


def panel_pngs(panel: "Panel", centre_zyx: Sequence[int] | None = None) -> list[tuple[str, bytes]]:
    """The three planes of a panel as PNG, one pixel per voxel: pairs of plane and bytes."""
    scale, image = scale_of(panel), np.asarray(panel.image)
    return [(name, png(scale.paint(plane(image, name, centre_zyx)))) for name in PLANES]


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB image as PNG; equal images give equal bytes."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png", metadata={"Software": "meddiff"})
    return buffer.getvalue()


def strip(picture: "Picture") -> NDArray[np.uint8]:
    """The whole picture as one RGB image: planes as rows, panels as columns, captions above, scales below."""
    columns = [_column(panel, picture.centre_zyx) for panel in picture.panels]
    body = np.concatenate([np.pad(column, ((0, 0), (0, GAP), (0, 0))) for column in columns], axis=1)
    height, width = body.shape[0] + HEAD + FOOT, max(body.shape[1], len(picture.title) * 7)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    figure.figimage(body, 0, FOOT, origin="upper")
    say = partial(figure.text, color="white", va="center")
    say(6 / width, 1 - 12 / height, picture.title, fontsize=8)
    left = 0
    for panel, column in zip(picture.panels, columns, strict=True):
        say((left + 4) / width, 1 - 34 / height, panel.caption, fontsize=7)
        for share, align, text in zip((0, 0.5, 1), ("left", "center", "right"), scale_of(panel).ticks, strict=False):
            say((left + share * (EDGE - 1)) / width, FOOT / 2 / height, text, ha=align, fontsize=6)
        left += column.shape[1] + GAP
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _column(panel: "Panel", centre: Sequence[int] | None) -> NDArray[np.uint8]:
    """The planes of a panel at EDGE pixels of width, one above the other, and its scale as a bar."""
    scale, image = scale_of(panel), np.asarray(panel.image)
    parts = [_widened(scale.paint(plane(image, name, centre))) for name in PLANES]
    shades = np.linspace(scale.low, scale.high, EDGE) if scale.ticks else np.zeros(EDGE)
    parts.append(np.repeat(scale.paint(shades)[None], 5, axis=0))
    return np.concatenate([np.pad(part, ((0, GAP), (0, 0), (0, 0))) for part in parts])


def _widened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Nearest neighbours at EDGE pixels of width."""
    height, width = image.shape[:2]
    rows = np.arange(round(height * EDGE / width)) * width // EDGE
    return image[np.minimum(rows, height - 1)][:, np.arange(EDGE) * width // EDGE]
