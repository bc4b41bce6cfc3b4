"""The paper's body mask at full resolution (SPEC §2.3), written anew with scipy, and how near two masks end.

Outside air is the largest piece below -800 HU, closed by 3³; the body is what is not air, eroded by 5³, its largest
piece, dilated by 5³. Where pictures show that it errs on a scan it is told, by name, what it cannot know:

- `lungs`: the field of view cuts a lung. Air that touches its mask (airways) is inside, all other at the sides not.
- `open_sides`: outside air is in several pieces. All air that reaches the sides of the volume is outside.
- `couch`: blocks of the couch touch the patient. Only what 15 mm hold together is one piece, with noses within 8 mm.
- `cloth`: a mattress lies at the skin. What is thinner than 15 mm and lighter than any tissue is outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

NEAR_MM = 4.0
AIR_HU = -800
EDGE = 3  # voxels beyond the volume's border, so that it is no air and no end of the body
THIN_MM = 15.0
LIGHT_HU = -300  # fat lies above -150
NOSE_MM = 8.0

Mask = NDArray[np.bool_]


def largest(mask: Mask) -> Mask:
    pieces, count = ndimage.label(mask)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax() if count else mask


def erode(mask: Mask, edge: int) -> Mask:
    return ndimage.minimum_filter(mask.view(np.uint8), edge, mode="nearest") > 0


def dilate(mask: Mask, edge: int) -> Mask:
    return ndimage.maximum_filter(mask.view(np.uint8), edge, mode="nearest") > 0


def recipe_body(
    hu: NDArray[np.int16],
    spacing_mm: float,
    *,
    lungs: Mask | None = None,
    open_sides: bool = False,
    couch: bool = False,
    cloth: bool = False,
) -> Mask:
    """The recipe's body of an isotropic volume (int16 HU, z y x)."""
    padded = np.pad(hu, EDGE, mode="edge")
    thin = ndimage.binary_closing(padded < AIR_HU, np.ones((3, 3, 3)))
    pieces, _ = ndimage.label(thin)
    outside = np.bincount(pieces.ravel())[1:].argmax() + 1
    air = pieces == outside
    if open_sides or lungs is not None:
        sides = np.concatenate([pieces[:, [EDGE, -EDGE]].ravel(), pieces[:, :, [EDGE, -EDGE]].ravel()])
        reaching = np.setdiff1d(sides, [0])
        if lungs is not None:
            near = ndimage.binary_dilation(np.pad(lungs, EDGE, mode="edge"), iterations=2)
            reaching = np.setdiff1d(reaching, np.unique(pieces[near]))
        air = np.isin(pieces, reaching)
    body = dilate(largest(erode(~air, 5)), 5)
    if cloth:
        body &= ~light_sheets(body, padded, spacing_mm)
    if couch:
        body = held_together(body, spacing_mm)
    return body[EDGE:-EDGE, EDGE:-EDGE, EDGE:-EDGE]


def light_sheets(body: Mask, hu: NDArray[np.int16], spacing_mm: float) -> Mask:
    """What an opening of 15 mm takes from a body, where it is lighter than any tissue."""
    edge = odd(THIN_MM / spacing_mm)
    return body & ~dilate(erode(body, edge), edge) & (hu < LIGHT_HU)


def held_together(body: Mask, spacing_mm: float) -> Mask:
    """The largest piece that is still one after an erosion of 15 mm, and what lies within 8 mm of it."""
    edge = odd(THIN_MM / spacing_mm)
    return dilate(largest(erode(body, edge)), edge + 2 * round(NOSE_MM / spacing_mm)) & body


def odd(size: float) -> int:
    return 2 * int(size / 2) + 1


@dataclass(frozen=True)
class Nearness:
    """Shares of each boundary within 4 mm of the other, and of volume more than 4 mm outside the other body."""

    ours: float
    theirs: float
    excess: float
    missing: float


def compare(ours: Mask, theirs: Mask, spacing_mm: float) -> Nearness:
    """How near two masks end; the volume's border is no boundary."""
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1)) * spacing_mm for mask in (ours, theirs)]
    trees = [cKDTree(each) for each in points]
    near = [np.isfinite(trees[1 - n].query(points[n], distance_upper_bound=NEAR_MM)[0]).mean() for n in (0, 1)]
    only = [np.argwhere(one & ~other) * spacing_mm for one, other in ((ours, theirs), (theirs, ours))]
    far = [np.isinf(trees[1 - n].query(only[n], distance_upper_bound=NEAR_MM)[0]).sum() / theirs.sum() for n in (0, 1)]
    return Nearness(*(float(share) for share in (*near, *far)))
