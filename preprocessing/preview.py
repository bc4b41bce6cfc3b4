"""Previews: one PNG per case with three planes and outlines, one contact sheet per source.

Radiological convention: the patient's right is on the left of the picture, the head is up, the sagittal plane looks to
the left of the picture. Millimetres are the same in every direction and plane. They lie at
`previews/<recipe>/<source>/<case>-<input>.png`, outside the case and its seal, for people only: a head that is not
defaced can be recognised, so previews stay in the lake and are never published. A picture names no case.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from preprocessing.anatomy import BODY
from preprocessing.case import RegionName, source_folder
from preprocessing.layout import Pyramid
from preprocessing.recipe import Recipe
from preprocessing.regions import WINDOWS, RegionExtent, Window

WIDE_HU = (-1000, -200, 300)  # where the case is not of one region: lung darkly, soft tissue and bone brightly
WIDE_GREY = (0, 90, 255)
TALLEST = 320  # pixels of the longest axis
LESION = (255, 64, 51)
Colour = tuple[int, int, int]
REGION_COLOURS: dict[RegionName, Colour] = {
    "head_neck": (120, 190, 255),
    "chest": (255, 210, 90),
    "abdomen": (130, 230, 150),
}
WHITE, GAP, BAR = (235, 235, 235), 6, 22
SIDES = ("RL", "RL", "AP")  # what lies on the left and on the right of the axial, coronal and sagittal plane
SHEET_CASES = 60
SHEET_COLUMNS = 3
SHEET_TILE = (480, 240)


def preview_key(recipe: Recipe, source: str, case: str, input_: str) -> str:
    """Where a case's preview lies in the lake."""
    return f"previews/{recipe.fingerprint}/{source_folder(source)}/{case}-{input_}.png"


def sheet_key(recipe: Recipe, source: str) -> str:
    """Where a source's contact sheet lies in the lake."""
    return f"previews/{recipe.fingerprint}/{source_folder(source)}.png"


def preview(pyramid: Pyramid, regions: Sequence[RegionExtent]) -> bytes:
    """PNG bytes: axial, coronal and sagittal plane side by side through the largest lesion or the middle of the body.

    Outlines are one pixel wide: organs in their colours, the body grey, lesions red; a region's ends are lines in the
    coronal and sagittal plane.
    """
    level = next((k for k, a in enumerate(pyramid.image) if max(a.shape) <= TALLEST), len(pyramid.image) - 1)
    image, anatomy = pyramid.image[level], pyramid.anatomy[level]
    lesion = pyramid.lesion[level] if pyramid.lesion else np.zeros_like(anatomy)
    window = WINDOWS[regions[0].name] if len(regions) == 1 else None
    scale = TALLEST / max(image.shape)
    centre = _centre(anatomy, lesion)
    planes = []
    for axis, at in enumerate(centre):
        cut = [np.take(array, at, axis) for array in (image, anatomy, lesion)]
        if axis:
            cut = [array[::-1] for array in cut]  # superior on top
        planes.append(draw_plane(window, *cut, scale))
    for plane in planes[1:]:
        _draw_regions(plane, regions, pyramid.image[0].shape[0])
    for plane, sides in zip(planes, SIDES, strict=True):
        _draw_sides(plane, sides)
    spacing = pyramid.geometry.spacing_mm[0] * 2**level
    size = " x ".join(f"{n * spacing:.0f}" for n in image.shape)
    low, high = (window.low_hu, window.high_hu) if window else (WIDE_HU[0], WIDE_HU[-1])
    caption = [(region.name, REGION_COLOURS[region.name]) for region in regions] or [("no region", WHITE)]
    return encode_png(_side_by_side(planes, [*caption, (f"{size} mm", WHITE), (f"{low:.0f} to {high:.0f} HU", WHITE)]))


def contact_sheet(title: str, previews: Sequence[tuple[str, bytes]], cases: int = 0) -> bytes:
    """PNG bytes: the first previews of a source in a grid, each under its case's name; `cases` is how many it has."""
    shown = previews[:SHEET_CASES]
    tiles = [_tile(name, data) for name, data in shown]
    columns = min(SHEET_COLUMNS, len(tiles))
    heights = [max(tile.height for tile in tiles[n : n + columns]) + GAP for n in range(0, len(tiles), columns)]
    sheet = Image.new("RGB", (columns * (SHEET_TILE[0] + GAP), 2 * BAR + sum(heights)))
    ImageDraw.Draw(sheet).text((GAP, GAP), f"{title}: {len(shown)} of {cases or len(previews)} cases", WHITE, _font(15))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (column * (SHEET_TILE[0] + GAP), 2 * BAR + sum(heights[:row])))
    return encode_png(sheet)


def _tile(name: str, data: bytes) -> Image.Image:
    """A preview made small enough for the sheet, under its case's name."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.thumbnail(SHEET_TILE)
    tile = Image.new("RGB", (SHEET_TILE[0], picture.height + BAR))
    ImageDraw.Draw(tile).text((GAP, 2), name, WHITE, _font(13))
    tile.paste(picture, (0, BAR))
    return tile


def _centre(anatomy: NDArray[np.uint8], lesion: NDArray[np.uint8]) -> list[int]:
    """The voxel that the planes go through: the middle of the largest lesion, else of the body."""
    mask = anatomy > 0
    if lesion.any():
        pieces, _ = ndimage.label(lesion)
        mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    if not mask.any():
        return [n // 2 for n in mask.shape]
    counts = [np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return [int(np.searchsorted(np.cumsum(c), c.sum() / 2)) for c in counts]


def draw_plane(
    window: Window | None, hu: NDArray[Any], anatomy: NDArray[np.uint8], lesion: NDArray[np.uint8], scale: float
) -> Image.Image:
    """One plane with the outlines of its classes and lesions, so many pixels a voxel; `window` None = a wide one."""
    size = max(1, round(hu.shape[1] * scale)), max(1, round(hu.shape[0] * scale))
    shown = (window.normalise(hu) + 1) * 127.5 if window else np.interp(hu, WIDE_HU, WIDE_GREY)
    grey = Image.fromarray(shown.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    ids, marked = (np.asarray(Image.fromarray(a).resize(size, Image.Resampling.NEAREST)) for a in (anatomy, lesion))
    picture = np.repeat(np.asarray(grey)[..., None], 3, -1).astype(np.float32)
    border = _outline(ids)
    picture[border] = 0.2 * picture[border] + 0.8 * _colours()[ids[border]]
    picture[_outline(marked)] = LESION
    return Image.fromarray(picture.astype(np.uint8))


def _outline(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of every class that touch a lower id or the background."""
    return (ids > 0) & (ids != ndimage.grey_erosion(ids, footprint=ndimage.generate_binary_structure(2, 1)))


def _draw_regions(plane: Image.Image, regions: Sequence[RegionExtent], depth: int) -> None:
    """A bracket at the right border from a region's lower to its upper end, one column a region, with its name."""
    draw = ImageDraw.Draw(plane)
    for column, region in enumerate(regions):
        top, bottom = (plane.height * (1 - z / depth) for z in (region.z_stop, region.z_start))
        top, bottom = min(top + 1, plane.height - 1), min(bottom - 1, plane.height - 1)
        x = plane.width - 2 - 5 * column
        colour = REGION_COLOURS[region.name]
        draw.line([(x - 4, top), (x, top), (x, bottom), (x - 4, bottom)], colour)
        for dash in range(0, x, 8):
            draw.line([(dash, top), (dash + 3, top)], colour)
            draw.line([(dash, bottom), (dash + 3, bottom)], colour)


def _draw_sides(plane: Image.Image, sides: str) -> None:
    draw, font = ImageDraw.Draw(plane), _font(13)
    draw.text((3, plane.height // 2), sides[0], WHITE, font, anchor="lm", stroke_width=1, stroke_fill="black")
    place = (plane.width - 20, plane.height // 2)
    draw.text(place, sides[1], WHITE, font, anchor="rm", stroke_width=1, stroke_fill="black")


def _side_by_side(planes: Sequence[Image.Image], caption: Sequence[tuple[str, Colour]]) -> Image.Image:
    font = _font(15)
    width = sum(plane.width + GAP for plane in planes) - GAP
    height = max(plane.height for plane in planes)
    words = int(sum(font.getlength(text) + 3 * GAP for text, _ in caption))
    picture = Image.new("RGB", (max(width, words), height + BAR))
    x = 0
    for plane in planes:
        picture.paste(plane, (x, (height - plane.height) // 2))
        x += plane.width + GAP
    draw, at = ImageDraw.Draw(picture), float(GAP)
    for text, colour in caption:
        draw.text((at, height + 2), text, colour, font)
        at += font.getlength(text) + 2 * GAP
    return picture


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _colours() -> NDArray[np.float32]:
    """An RGB colour (0-255) per class id: hues by the golden angle, grey for body and unknown."""
    hue = (np.arange(256) * 0.618034 % 1)[:, None] + np.array([0, 1 / 3, 2 / 3])
    colours = 255 * (0.6 + 0.4 * np.cos(2 * np.pi * hue))
    colours[BODY:] = 150
    return colours.astype(np.float32)


def encode_png(picture: Image.Image) -> bytes:
    """The picture's PNG bytes, lightly compressed."""
    stream = io.BytesIO()
    picture.save(stream, format="png", compress_level=3)
    return stream.getvalue()
