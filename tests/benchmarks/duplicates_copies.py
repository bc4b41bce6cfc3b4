"""What other data sets do to a scan before it comes again under another name: the copies that `duplicates` seeks.

Copies are made in the scanner's grid, turned upright, before anything is resampled to the lake's. Every one is a
function of the image (int16 HU, z y x) and its spacing in mm.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from preprocessing.geometry import Geometry, Triple
from preprocessing.orient import turn_towards
from preprocessing.resample import output_grid, resample_onto

Image = NDArray[np.int16]
Scan = tuple[Image, Geometry]
Grid = tuple[Image, Triple]
Change = Callable[[Image, Triple], Grid]
SMALL_MM = (110, 110, 70)  # z, y, x: the field of view of a published crop of one vertebra


def copy_of(scan: Scan, name: str) -> Scan:
    """The copy of that name of `COPIES`, or the visit of that name of `VISITS`."""
    image, geometry = scan
    turn = turn_towards(geometry)
    image, spacing = (COPIES | VISITS)[name](turn.array(image), turn.geometry(geometry).spacing_mm)
    return np.ascontiguousarray(image), Geometry(image.shape, spacing)


def after(*changes: Change) -> Change:
    """One change after the other."""

    def change(image: Image, spacing: Triple) -> Grid:
        for one in changes:
            image, spacing = one(image, spacing)
        return image, spacing

    return change


def mirrored(axes: str) -> Change:
    """Mirrored along some of z, y, x."""
    steps = tuple(slice(None, None, -1 if axis in axes else 1) for axis in "zyx")
    return lambda image, spacing: (image[steps], spacing)


def kept(axes: str, share: float, off_centre: float = 0.0) -> Change:
    """A share of the length along some axes, from the middle or off it by a share of what is cut off there."""

    def change(image: Image, spacing: Triple) -> Grid:
        part = []
        for axis, n in zip("zyx", image.shape, strict=True):
            length = round(n * share) if axis in axes else n
            start = round((n - length) * (0.5 + off_centre))
            part.append(slice(start, start + length))
        return image[tuple(part)], spacing

    return change


def box(size_mm: Triple) -> Change:
    """At most so many mm from the middle of the body, a little behind it."""

    def change(image: Image, spacing: Triple) -> Grid:
        body = np.argwhere(image[::4, ::4, ::4] > -300) * 4
        middle = np.median(body, axis=0) + np.array([0, 15 / spacing[1], 0])
        part = []
        for centre, n, edge_mm, mm in zip(middle, image.shape, size_mm, spacing, strict=True):
            length = min(n, int(np.ceil(edge_mm / mm)))
            start = int(np.clip(round(centre - length / 2), 0, n - length))
            part.append(slice(start, start + length))
        return image[tuple(part)], spacing

    return change


def resampled(z: float = 0.0, y: float = 0.0, x: float = 0.0) -> Change:
    """Linear interpolation at another spacing in mm; 0 keeps an axis as it is."""

    def change(image: Image, spacing: Triple) -> Grid:
        geometry = Geometry(image.shape, spacing)
        grid = output_grid(geometry, tuple(new or old for new, old in zip((z, y, x), spacing, strict=True)))
        return resample_onto(image, geometry, grid), grid.spacing_mm

    return change


def thickened(mm: float) -> Change:
    """Means of as many slices as come nearest to a thickness in mm."""

    def change(image: Image, spacing: Triple) -> Grid:
        slices = max(1, round(mm / spacing[0]))
        whole = image[: len(image) // slices * slices]
        means = whole.reshape(-1, slices, *image.shape[1:]).mean(1)
        return np.rint(means).astype(np.int16), (spacing[0] * slices, *spacing[1:])

    return change


def padded(image: Image, spacing: Triple) -> Grid:
    """With air on all sides, as much as a fifth."""
    depth, height, width = image.shape
    edges = ((0, depth // 6), (height // 5, height // 9), (width // 7, width // 4))
    return np.pad(image, edges, constant_values=-1024), spacing


def without_spacing(image: Image, spacing: Triple) -> Grid:
    """The spacing is said to be 1, 1, 1 mm."""
    return image, (1.0, 1.0, 1.0)


def clipped(low: int, high: int, step: int = 1) -> Change:
    """HU held between two values and kept in steps, as a type of fewer bits would."""
    return lambda image, spacing: (((np.clip(image, low, high) - low) // step * step + low).astype(np.int16), spacing)


def raised(hu: int) -> Change:
    """All HU higher."""
    return lambda image, spacing: (image + np.int16(hu), spacing)


def noisy(hu: float) -> Change:
    """White noise, as of a low dose."""

    def change(image: Image, spacing: Triple) -> Grid:
        noise = np.random.default_rng(5).normal(0, hu, image.shape)
        return np.clip(np.rint(image + noise), -1024, 3071).astype(np.int16), spacing

    return change


def smoothed(mm: float) -> Change:
    """Blurred in plane, as by another reconstruction kernel."""

    def change(image: Image, spacing: Triple) -> Grid:
        sigma = (0, mm / spacing[1], mm / spacing[2])
        return np.rint(ndimage.gaussian_filter(image.astype(np.float32), sigma)).astype(np.int16), spacing

    return change


def bent(mm: float) -> Change:
    """Another visit: the body bent smoothly by about so many mm here and there, and other noise; voxels of 3 mm."""

    def change(image: Image, spacing: Triple) -> Grid:
        image, spacing = resampled(3, 3, 3)(image, spacing)
        rng = np.random.default_rng(7)
        places = np.indices(image.shape, dtype=np.float32)
        for axis in range(3):
            knots = rng.normal(0, mm / spacing[axis], [max(4, n * 3 // 60 + 3) for n in image.shape])
            places[axis] += ndimage.zoom(knots, np.divide(image.shape, knots.shape), order=2)
        moved = ndimage.map_coordinates(image.astype(np.float32), places, order=1, mode="nearest")
        return noisy(15)(np.rint(moved).astype(np.int16), spacing)

    return change


VISITS: dict[str, Change] = {f"visit: bent by {mm} mm": bent(mm) for mm in (3, 5, 8)}
COPIES: dict[str, Change] = {
    "saved again": after(),
    "clipped to -1000..1000": clipped(-1000, 1000),
    "8 bits of -160..240": clipped(-160, 240, 2),
    "8 bits of -1000..1040": clipped(-1000, 1040, 8),
    "24 HU higher": raised(24),
    "noise of 25 HU": noisy(25),
    "blurred by 1.5 mm": smoothed(1.5),
    **{f"mirrored {axes}": mirrored(axes) for axes in ("z", "y", "x", "zx", "zyx")},
    **{f"{share:.0%} of z": kept("z", share, 0.2) for share in (0.75, 0.5, 0.3)},
    **{f"{share:.0%} of y": kept("y", share) for share in (0.8, 0.6)},
    **{f"{share:.0%} of x": kept("x", share) for share in (0.8, 0.6)},
    "half of x, one side": kept("x", 0.5, 0.5),
    **{f"{share:.0%} of y, x": kept("yx", share) for share in (0.8, 0.6)},
    "60% of z, y, x": kept("zyx", 0.6),
    "60 mm of z": box((60, 1e4, 1e4)),
    "box of 110x110x70 mm": box(SMALL_MM),
    "padded": padded,
    **{f"slices of {mm:g} mm": resampled(z=mm) for mm in (1.5, 3.0, 5.0)},
    "slices of 5 mm, averaged": thickened(5),
    "pixels of 2.5 mm": resampled(y=2.5, x=2.5),
    "voxels of 3 mm": resampled(3, 3, 3),
    "spacing lost": without_spacing,
    "spacing lost, mirrored z": after(mirrored("z"), without_spacing),
    "spacing lost, 80% of z": after(kept("z", 0.8), without_spacing),
    "half of z, mirrored x, 5 mm": after(kept("z", 0.5, 0.2), mirrored("x"), resampled(z=5)),
    "80% of y, x, mirrored z, 8 bits": after(kept("yx", 0.8), mirrored("z"), clipped(-160, 240, 2)),
    "60% of all, 3 mm, 24 HU higher": after(kept("zyx", 0.6), resampled(3, 3, 3), raised(24)),
    "box, mirrored x, 2.5 mm": after(box(SMALL_MM), mirrored("x"), resampled(2.5, 2.5, 2.5)),
}
