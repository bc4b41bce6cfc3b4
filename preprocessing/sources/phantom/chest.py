"""The phantom's chest: diaphragm, lungs with fissures, vessels and bronchi, heart, great vessels, airway and gullet."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.sources.phantom.canvas import Box, Canvas, Field, ellipsoid, tube, tubes, turned
from preprocessing.sources.phantom.outline import trunk
from preprocessing.sources.phantom.patient import Scan

_RNG_VESSELS, _RNG_BRONCHI = 11, 12
_HILA = ((438, 12, 34), (430, 10, -36))  # left, right
_LOBE_NAMES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)

_TRACHEA = [(652, -20, 0, 9), (600, -6, 0, 9), (540, 10, 1, 9), (490, 14, 3, 9), (466, 14, 2, 10)]
_BRONCHI = (
    [(466, 14, 2, 8), (448, 13, 22, 7), (438, 13, 38, 6), (425, 16, 46, 4)],
    [(466, 14, 2, 8), (450, 12, -18, 8), (436, 12, -32, 7), (418, 16, -42, 5)],
)
_OESOPHAGUS = [
    (640, 6, 2, 7),
    (580, 26, 3, 7),
    (500, 34, 4, 7.5),
    (440, 36, 6, 8),
    (390, 26, 12, 8),
    (362, 8, 22, 8),
    (348, 2, 34, 8),
]
_AORTA = [
    (408, -22, 4, 15),
    (440, -28, -6, 15.5),
    (475, -24, -6, 15),
    (496, -8, 4, 14.5),
    (498, 12, 16, 13.5),
    (482, 34, 26, 13),
    (450, 42, 28, 12.5),
    (380, 40, 22, 12),
    (300, 24, 12, 11),
    (230, 10, 9, 9.5),
    (150, 8, 4, 8.5),
]
_ARCH_BRANCHES = (
    ("brachiocephalic_trunk", [(490, -14, -3, 6.5), (520, -8, -14, 6.5), (538, -2, -20, 6)]),
    ("common_carotid_artery_right", [(538, -2, -20, 4), (590, 0, -22, 4), (660, 8, -27, 4)]),
    ("common_carotid_artery_left", [(496, -6, 8, 4.5), (540, -2, 17, 4), (590, 0, 22, 4), (660, 8, 27, 4)]),
    ("subclavian_artery_right", [(536, -2, -20, 4.5), (556, 4, -42, 4.5), (556, 0, -78, 4), (548, 2, -110, 4)]),
    (
        "subclavian_artery_left",
        [(498, 6, 15, 5), (540, 8, 24, 4.5), (558, 6, 44, 4.5), (556, 0, 78, 4), (548, 2, 110, 4)],
    ),
)
_VEINS = (
    ("superior_vena_cava", [(398, -14, -30, 9.5), (440, -16, -30, 9.5), (490, -20, -28, 9)]),
    ("brachiocephalic_vein_right", [(490, -20, -28, 8), (520, -24, -26, 7), (544, -26, -32, 6.5)]),
    ("brachiocephalic_vein_left", [(492, -22, -26, 7), (508, -38, -4, 6.5), (526, -34, 22, 6.5), (544, -26, 34, 6.5)]),
    ("", [(544, -26, -34, 6), (600, -2, -32, 6), (665, 12, -34, 5.5)]),
    ("", [(544, -26, 36, 6), (600, -2, 32, 5.5), (665, 12, 34, 5.5)]),
    ("pulmonary_vein", [(418, 6, 12, 7), (422, 10, 36, 6), (430, 6, 52, 4)]),
    ("pulmonary_vein", [(418, 8, -6, 7), (416, 10, -34, 6), (408, 6, -50, 4)]),
    ("pulmonary_vein", [(408, 10, 12, 7), (400, 20, 36, 6), (390, 26, 52, 4)]),
    ("pulmonary_vein", [(408, 10, -6, 7), (400, 20, -36, 6), (388, 28, -50, 4)]),
)
_PULMONARY = (
    [(425, -38, 18, 13), (450, -28, 20, 13.5), (458, -12, 18, 12)],
    [(456, -10, 18, 11), (452, 4, 34, 10), (440, 16, 46, 8), (415, 24, 54, 6)],
    [(456, -10, 16, 11), (446, -2, -12, 10), (438, 0, -36, 8), (415, 18, -52, 6)],
)


def diaphragm_mm(canvas: Canvas, box: Box) -> NDArray[np.float32]:
    """Body z in mm of the diaphragm's upper face over a box: two domes with deep recesses around them."""
    _, y, x = canvas.at(box)
    side = np.clip(x / 30, -1, 1)
    aside = np.abs(x) - 66
    drop = np.where(aside > 0, aside**2 * 0.0235, aside**2 * 0.0032)
    forward = y + 8
    drop += np.where(forward > 0, forward**2 * 0.0160, forward**2 * 0.0085)
    return (np.float32(381) - np.float32(8) * side - np.minimum(drop, 150)).astype(np.float32)


def paint_lungs(canvas: Canvas, scan: Scan) -> None:
    """Diaphragm and pleural cavities, five lobes, their vessels and bronchi (which the map does not name)."""
    box = canvas.box((425, 5, 0), (185, 105, 140))
    z, y, x = canvas.at(box)
    if not z.size:
        return
    cavity = canvas.organs["cavity"].mm[box]
    dome = diaphragm_mm(canvas, box)
    sheet = np.abs(z - dome + 2) - np.float32(2.5)
    canvas.paint(Field(box, np.maximum(cavity, sheet)), ((0, scan.hu["muscle"]),))
    middle = np.interp(np.arange(230, 620), (230, 400, 480, 540, 600), (30, 30, 26, 17, 12)).astype(np.float32)
    gap = np.take(middle, np.clip(z[:, :, :1] - 230, 0, 389).astype(np.int16))
    gap = gap * (0.55 + 0.45 / (1 + ((y - 22) * np.float32(1 / 32)) ** 4))
    lung = np.maximum(np.maximum(cavity + 1, dome - z), gap - np.abs(x))
    canvas.organs["lung"] = Field(box, lung)
    canvas.paint(Field(box, lung), ((0, scan.hu["lung"]),), "body")
    for name, part in _lobes(z, y, x):
        canvas.paint(Field(box, lung), (), name, only=part)
    _paint_lung_trees(canvas, scan, Field(box, lung))


def _lobes(z: NDArray, y: NDArray, x: NDArray) -> list[tuple[str, NDArray[np.bool_]]]:
    left, below = x > 0, z < 425 + np.float32(1.25) * y
    middle = (z < 432 + np.float32(0.12) * y) & ~below & ~left
    parts = (left & ~below, left & below, ~left & ~below & ~middle, middle, ~left & below)
    return list(zip(_LOBE_NAMES, parts, strict=True))


def _paint_lung_trees(canvas: Canvas, scan: Scan, lung: Field) -> None:
    vessels, bronchi = scan.rng(_RNG_VESSELS), scan.rng(_RNG_BRONCHI)
    inside = Field(lung.box, lung.mm + 2)
    for hilum in _HILA:
        starts, ends = _tree(vessels, hilum, count=9, generations=5, radius=4.6)
        tree = tubes(canvas, starts, ends)
        canvas.paint(tree.clip(inside.over(tree.box).mm), ((0, scan.hu["lung_vessel"]),))
        starts, ends = _tree(bronchi, hilum, count=4, generations=4, radius=4.4)
        walls = ((0, scan.hu["muscle"]), (1.4, scan.hu["air"]))
        tree = tubes(canvas, starts, ends)
        canvas.paint(tree.clip(inside.over(tree.box).mm), walls)


def _tree(
    rng: np.random.Generator, root: tuple[float, float, float], count: int, generations: int, radius: float
) -> tuple[NDArray, NDArray]:
    """Starts and ends (N, 4) of a forking tree that fans out sideways from a hilum."""
    side = np.sign(root[2])
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 1)
    aim = np.stack([np.cos(angles) * 1.2, np.sin(angles) * 0.9, np.full(count, 0.75 * side)], axis=1)
    aim += rng.normal(0, 0.15, aim.shape)
    start = np.repeat(np.asarray(root, float)[None], count, axis=0)
    size, length = np.full(count, radius), 34.0
    starts, ends = [], []
    for _ in range(generations):
        aim /= np.linalg.norm(aim, axis=1, keepdims=True)
        end = start + aim * (length * rng.uniform(0.75, 1.25, (len(aim), 1)))
        starts.append(np.c_[start, size])
        ends.append(np.c_[end, size * 0.8])
        start, size, length = np.repeat(end, 2, axis=0), np.repeat(size * 0.76, 2), length * 0.8
        fork = rng.normal(0, 1, (len(aim), 3))
        fork -= aim * (fork * aim).sum(1, keepdims=True)
        fork *= 0.55 / np.linalg.norm(fork, axis=1, keepdims=True)
        aim = np.stack([aim + fork, aim - fork], axis=1).reshape(-1, 3)
    return np.concatenate(starts), np.concatenate(ends)


def paint_heart(canvas: Canvas, scan: Scan) -> None:
    """Pericardial fat, heart muscle with four blood-filled chambers, left atrial appendage."""
    turn = turned(roll=38, yaw=28)
    box = canvas.box((405, -20, 18), (80, 80, 90))
    above = diaphragm_mm(canvas, box) - canvas.at(box)[0]
    inside = np.maximum(above, canvas.organs["cavity"].mm[box] + 3)
    hu = scan.hu
    for radii, layers, label in (
        ((57, 56, 68), ((0, hu["muscle"] * 0.5), (1.5, hu["fat"])), "body"),
        ((50, 48, 61), ((0, hu["myocardium"]),), "heart"),
    ):
        whole = ellipsoid(canvas, (404, -20, 20), radii, turn).over(box)
        canvas.paint(whole.clip(inside), layers, label)
    for centre, radii in (
        ((398, -18, 42), (21, 20, 34)),
        ((396, -44, 6), (26, 15, 36)),
        ((414, -18, -20), (26, 20, 17)),
        ((424, 10, 8), (19, 15, 27)),
    ):
        chamber = ellipsoid(canvas, centre, radii, turn).over(box)
        canvas.paint(chamber.clip(inside + 3), ((0, hu["heart_blood"]),), "heart")
    canvas.paint(ellipsoid(canvas, (438, -14, 38), (10, 14, 10)), ((0, hu["heart_blood"]),), "atrial_appendage_left")


def paint_great_vessels(canvas: Canvas, scan: Scan) -> None:
    """Pulmonary arteries (unnamed by the map), caval and brachiocephalic veins, aorta and its arch's branches."""
    hu = scan.hu
    for path in _PULMONARY:
        canvas.paint(tube(canvas, path), ((0, hu["wall"]), (1, hu["lung_vessel"])), "body")
    for name, path in _VEINS:
        value = hu["lung_vessel"] if name == "pulmonary_vein" else hu["vein"]
        canvas.paint(tube(canvas, path), ((0, hu["wall"]), (0.8, value)), name or "body")
    for name, path in _ARCH_BRANCHES:
        canvas.paint(tube(canvas, path), ((0, hu["wall"]), (0.8, hu["artery"])), name)
    canvas.paint(tube(canvas, _AORTA), ((0, hu["wall"]), (1.2, hu["artery"])), "aorta")


def paint_airway(canvas: Canvas, scan: Scan) -> None:
    """Gullet, trachea and main bronchi."""
    hu = scan.hu
    canvas.paint(tube(canvas, _OESOPHAGUS), ((0, hu["wall"]), (5.2, hu["air"] * 0.5)), "esophagus")
    for path in _BRONCHI:
        canvas.paint(tube(canvas, path), ((0, hu["cartilage"]), (2.0, hu["air"])), "body")
    canvas.paint(tube(canvas, _TRACHEA), ((0, hu["cartilage"]), (2.2, hu["air"])), "trachea")


def lung_cavity(canvas: Canvas) -> None:
    """Remember the cavity of chest and belly for the organs that are bounded by it."""
    canvas.organs["cavity"] = Field(canvas.whole, trunk(canvas, "cavity"))
