"""The phantom's skeleton: spine with canal and cord, ribs that follow the chest wall, girdles, hips and femora."""

from typing import NamedTuple

import numpy as np

from preprocessing.sources.phantom.canvas import Canvas, Layers, ellipsoid, tube, tubes, turned
from preprocessing.sources.phantom.outline import profile, section_radius
from preprocessing.sources.phantom.patient import Scan

_SPINE_Z = (-30, -5, 30, 70, 100, 150, 200, 275, 350, 430, 500, 560, 600, 650, 690, 720)
_SPINE_Y = (60, 76, 82, 72, 52, 37, 35, 44, 57, 64, 61, 48, 36, 25, 21, 21)


class Vertebra(NamedTuple):
    """Name, centre z, height, half width and half depth of the vertebral body in mm."""

    name: str
    z: float
    height: float
    wide: float
    deep: float


def spine_y(z: float) -> float:
    """Body y in mm of the vertebral bodies' centres at z: lordosis, kyphosis, lordosis."""
    return float(np.interp(z, _SPINE_Z, _SPINE_Y))


def _vertebrae() -> tuple[Vertebra, ...]:
    names = [f"L{i}" for i in range(5, 0, -1)] + [f"T{i}" for i in range(12, 0, -1)]
    names += [f"C{i}" for i in range(7, 2, -1)]
    heights = [35.0] * 5 + list(np.linspace(29, 20.5, 12)) + [17.0] * 5
    wide = list(np.linspace(25, 21, 5)) + list(np.linspace(20, 14, 12)) + [13.0] * 5
    deep = list(np.linspace(18, 16.5, 5)) + list(np.linspace(16, 11, 12)) + [8.5] * 5
    tops = 100 + np.cumsum(heights)
    return tuple(
        Vertebra(f"vertebrae_{n}", float(top - h / 2), h, w, d)
        for n, top, h, w, d in zip(names, tops, heights, wide, deep, strict=True)
    )


VERTEBRAE = _vertebrae()
LEVEL_Z = {vertebra.name.removeprefix("vertebrae_"): vertebra.z for vertebra in VERTEBRAE}


def bone(scan: Scan, cortex_mm: float = 2.2) -> Layers:
    """A dense shell around spongy bone."""
    return (0, scan.hu["cortical"] * 0.75), (cortex_mm, scan.hu["trabecular"])


def paint_spine(canvas: Canvas, scan: Scan) -> None:
    """Discs, L5 to C1, sacrum, canal with its fluid, and the cord down to L1."""
    discs = [(z, spine_y(z), 0, r) for z, r in ((100, 20), (275, 18), (420, 15), (572, 11), (680, 8))]
    path = [
        (z, spine_y(z), 0, float(np.interp(z, [d[0] for d in discs], [d[3] for d in discs])))
        for z in range(95, 680, 15)
    ]
    canvas.paint(tube(canvas, path, (1, 0.85, 1.15)), ((0, scan.hu["disc"]),))
    _paint_sacrum(canvas, scan)
    for vertebra in VERTEBRAE:
        _paint_vertebra(canvas, scan, vertebra)
    _paint_axis_and_atlas(canvas, scan)
    canal = [(z, _canal_y(z), 0, 8.5) for z in range(30, 726, 16)]
    canvas.paint(tube(canvas, canal, (1, 0.9, 1.15)), ((0, scan.hu["fat"] * 0.3), (1.5, scan.hu["csf"])), "body")
    cord = [
        (z, _canal_y(z), 0, float(np.interp(z, (262, 285, 560, 620, 726), (2, 4.5, 4.5, 6, 6.5))))
        for z in range(262, 726, 16)
    ]
    canvas.paint(tube(canvas, cord), ((0, scan.hu["cord"]),), "spinal_cord")


def _canal_y(z: float) -> float:
    return spine_y(z) + float(np.interp(z, (30, 100, 275, 572, 680, 720), (12, 24, 23, 19, 18, 17)))


def _paint_vertebra(canvas: Canvas, scan: Scan, v: Vertebra) -> None:
    y, canal = spine_y(v.z), _canal_y(v.z)
    half = v.height * 0.39
    body = ellipsoid(canvas, (v.z, y, 0), (half * 3, v.deep, v.wide))
    z = canvas.at(body.box)[0]
    canvas.paint(body.clip(np.abs(z - np.float32(v.z)) - np.float32(half)), bone(scan, 1.6), v.name)
    neck = "C" in v.name
    reach, drop, spread = (18, 5, 12) if neck else (15, 20, 22) if "T" in v.name else (20, 7, 30)
    starts: list[tuple[float, float, float, float]] = [(v.z, canal + 9, 0, 4)]
    ends: list[tuple[float, float, float, float]] = [(v.z - drop, canal + 6 + reach, 0, 4)]
    for side in (1, -1):
        starts += [(v.z, y + v.deep * 0.6, side * v.wide * 0.75, 4.5), (v.z, canal, side * 13, 4.5)]
        ends += [(v.z, canal, side * 13, 5), (v.z - 3, canal + 9, 0, 4)]
        starts.append((v.z, canal, side * 13, 4.5))
        ends.append((v.z + 2, canal + (1 if neck else 5), side * (13 + spread), 3.5))
    canvas.paint(tubes(canvas, starts, ends), bone(scan, 1.8), v.name)


def _paint_axis_and_atlas(canvas: Canvas, scan: Scan) -> None:
    y = spine_y(672)
    axis = [(660, y, 0, 10), (672, y, 0, 9), (684, y, 0, 6), (698, y, 0, 5)]
    canvas.paint(tube(canvas, axis, (1, 0.85, 1.2)), bone(scan, 1.6), "vertebrae_C2")
    _paint_ring(canvas, scan, 667, 19, "vertebrae_C2")
    _paint_ring(canvas, scan, 695, 25, "vertebrae_C1")


def _paint_ring(canvas: Canvas, scan: Scan, z: float, wide: float, name: str) -> None:
    angles = np.linspace(0, 2 * np.pi, 15)
    y = _canal_y(z) - 3
    ring = [(z, y + 17 * np.cos(a), wide * np.sin(a), 4 + 3 * np.sin(a) ** 2) for a in angles]
    canvas.paint(tube(canvas, ring), bone(scan, 1.8), name)


def _paint_sacrum(canvas: Canvas, scan: Scan) -> None:
    path = [(92, 56, 0, 16), (70, 72, 0, 15), (45, 81, 0, 12), (20, 83, 0, 8), (-2, 77, 0, 5), (-20, 66, 0, 3)]
    canvas.paint(tube(canvas, path, (1, 0.8, 2.6)), bone(scan, 1.8), "sacrum")
    top = ellipsoid(canvas, (84, 60, 0), (34, 17, 27))
    z = canvas.at(top.box)[0]
    canvas.paint(top.clip(np.abs(z - np.float32(84)) - 13), bone(scan, 1.6), "vertebrae_S1")


def paint_ribs(canvas: Canvas, scan: Scan) -> None:
    """Twelve pairs of ribs, the costal cartilages, and the sternum."""
    layers = ((0, scan.hu["thin_bone"] * 1.15), (2.4, scan.hu["trabecular"]))
    sternum = [
        (z, _front_y(z) - 3, 0, r) for z, r in ((535, 6), (520, 6.5), (480, 5), (430, 5.5), (392, 4.5), (372, 3))
    ]
    for side, x in (("left", 1), ("right", -1)):
        tips = []
        for number in range(1, 13):
            path = _rib(number) * [1, 1, x, 1]
            tips.append(path[-1])
            canvas.paint(tube(canvas, path, (1.25, 1, 1)), layers, f"rib_{side}_{number}")
        starts, ends = _cartilages(np.array(tips[:10]), x)
        canvas.paint(tubes(canvas, starts, ends), ((0, scan.hu["cartilage"]),), "costal_cartilages")
    canvas.paint(tube(canvas, sternum, (1, 1, 3.2)), ((0, scan.hu["thin_bone"]), (2, scan.hu["trabecular"])), "sternum")


def _front_y(z: float) -> float:
    _, deep, centre = profile("cavity").at(z)
    return float(centre - deep - 7)


def _rib(number: int) -> np.ndarray:
    """Points (N, 4) of a left rib from its vertebra along the chest wall."""
    top = LEVEL_Z[f"T{number}"] + 7
    end = np.interp(number, (1, 2, 7, 10, 11, 12), (2.35, 2.5, 2.55, 2.1, 1.55, 1.2))
    drop = np.interp(number, (1, 2, 5, 8, 10, 12), (34, 58, 92, 112, 100, 75))
    y = spine_y(top)
    points = [(top, y + 8, 17, 4.2), (top + 3, y + 16, 30, 4.5)]
    for angle in np.linspace(0.5, end, 22):
        z = top + 3 - drop * (1 - np.cos(angle - 0.3)) / 1.75
        wide, deep, centre = profile("cavity").at(z)
        reach = section_radius(np.sin(angle), np.cos(angle))
        gap = 6.0
        points.append((z, centre + (deep + gap) * reach * np.cos(angle), (wide + gap) * reach * np.sin(angle), 4.4))
    return np.array(points, float)


def _cartilages(tips: np.ndarray, side: int) -> tuple[list, list]:
    starts, ends = [], []
    for number, tip in enumerate(tips, 1):
        if number <= 7:
            z = np.interp(number, (1, 7), (525, 385))
            middle = (0.6 * tip[0] + 0.4 * z - 4, _front_y(0.6 * tip[0] + 0.4 * z) + 2, 0.5 * tip[2] + side * 8, 5)
            end = (z, _front_y(z) - 1, side * 15, 5)
            starts += [tip, middle]
            ends += [middle, end]
        else:
            starts.append(tip)
            ends.append(tips[number - 2] * [1, 1, 0.8, 1] + [-12, -2, 0, 0])
    return starts, ends


def paint_girdles(canvas: Canvas, scan: Scan) -> None:
    """Clavicles, scapulae and humeri; hips and femora."""
    shaft: Layers = ((0, scan.hu["cortical"]), (4.0, scan.hu["marrow"] - 60))
    flat: Layers = ((0, scan.hu["thin_bone"]), (3.0, scan.hu["trabecular"]))
    for side, x in (("left", 1), ("right", -1)):
        mirror = np.array([1, 1, x, 1.0])
        clavicle = np.array([(538, -50, 18, 8), (548, -54, 50, 6), (562, -30, 95, 5.5), (570, -4, 128, 6.5)])
        canvas.paint(tube(canvas, clavicle * mirror), flat, f"clavicula_{side}")
        _paint_scapula(canvas, flat, side, x)
        humerus = [(552, 12, 150, 22), (545, 14, 158, 17)]
        humerus += (
            [(610, 5, 178, 11), (720, -20, 186, 11)] if scan.arms_up else [(480, 22, 184, 11), (300, 25, 196, 11)]
        )
        canvas.paint(
            tube(canvas, np.array(humerus) * mirror),
            ((0, scan.hu["cortical"] * 0.8), (3, scan.hu["trabecular"] * 0.5)),
            f"humerus_{side}",
        )
        _paint_hip(canvas, bone(scan, 2.4), side, x)
        canvas.paint(
            tube(canvas, np.array([(8, 4, 86, 23), (-8, 10, 112, 15), (-22, 14, 132, 18)]) * mirror),
            bone(scan),
            f"femur_{side}",
        )
        canvas.paint(tube(canvas, np.array([(-30, 14, 132, 17), (-150, 8, 122, 14)]) * mirror), shaft, f"femur_{side}")


def _paint_scapula(canvas: Canvas, layers: Layers, side: str, x: int) -> None:
    blade = ellipsoid(canvas, (487, 76, x * 104), (62, 4.5, 36), turned(roll=-x * 32, tilt=-8))
    canvas.paint(blade, layers, f"scapula_{side}")
    ridge = np.array([(528, 88, 80, 4), (545, 80, 118, 5), (566, 44, 152, 6), (572, 14, 146, 6)]) * [1, 1, x, 1]
    canvas.paint(tube(canvas, ridge), layers, f"scapula_{side}")
    socket = np.array([(520, 52, 118, 8), (548, 30, 126, 12), (562, -6, 122, 6)]) * [1, 1, x, 1]
    canvas.paint(tube(canvas, socket), layers, f"scapula_{side}")


def _paint_hip(canvas: Canvas, layers: Layers, side: str, x: int) -> None:
    name = f"hip_{side}"
    wing = ellipsoid(canvas, (82, 22, x * 96), (64, 66, 8), turned(roll=x * 32, yaw=x * 24))
    canvas.paint(wing, layers, name)
    bars = np.array(
        [
            ((62, 58, 52, 14), (40, 44, 78, 15)),
            ((40, 40, 78, 15), (10, 8, 86, 29)),
            ((5, -12, 72, 14), (0, -52, 24, 8)),
            ((0, -52, 24, 8), (-18, -48, 9, 9)),
            ((-4, 26, 82, 17), (-45, 38, 62, 15)),
            ((-48, 36, 60, 13), (-34, -26, 26, 7)),
            ((-34, -26, 26, 7), (-18, -46, 12, 8)),
        ]
    ) * [1, 1, x, 1]
    canvas.paint(tubes(canvas, bars[:, 0], bars[:, 1]), layers, name)
    joint = ellipsoid(canvas, (7, 2, x * 88), (26, 26, 26))
    canvas.paint(joint, ((0, layers[1][1] * 0 + 60),), "body")
