"""The phantom's head and neck: brain with ventricles and folds, skull, face with its air spaces, throat, thyroid."""

import numpy as np

from preprocessing.sources.phantom.canvas import Canvas, Field, ellipsoid, tube, turned
from preprocessing.sources.phantom.patient import Scan

_BRAIN = ((775, 8, 0), (61, 82, 64))
_PHARYNX = [(716, -18, 0, 9), (690, -14, 0, 8), (668, -16, 0, 8), (648, -20, 0, 8)]


def paint_skull(canvas: Canvas, scan: Scan) -> None:
    """Skull cap and base, facial bones and jaw; the jaw belongs to class skull."""
    hu = scan.hu
    table = ((0, hu["skull"]), (2, hu["trabecular"] + 250), (4, hu["skull"]))
    centre, radii = _BRAIN
    canvas.paint(ellipsoid(canvas, centre, np.asarray(radii) + 6.5), table, "skull")
    face = ((0, hu["thin_bone"]), (2, hu["thin_bone"] * 0.75))
    canvas.paint(ellipsoid(canvas, (712, -52, 0), (24, 27, 44)), face, "skull")
    canvas.paint(ellipsoid(canvas, (738, -62, 0), (18, 18, 48)), ((0, hu["thin_bone"]), (2.5, hu["mucus"])), "skull")
    canvas.paint(ellipsoid(canvas, (686, -52, 0), (11, 25, 28)), face, "skull")
    for x in (1, -1):
        cheek = [(716, -62, x * 40, 8), (718, -46, x * 60, 4.5), (722, -10, x * 64, 4)]
        jaw = [(652, -82, 0, 9), (656, -72, x * 24, 8), (668, -36, x * 44, 8), (704, -18, x * 52, 7)]
        for path in (cheek, jaw):
            canvas.paint(tube(canvas, path), ((0, hu["cortical"]), (3, hu["trabecular"])), "skull")
        mastoid = ellipsoid(canvas, (708, 22, x * 56), (18, 15, 11))
        canvas.paint(mastoid, ((0, hu["skull"] * 0.7), (3.5, -450)), "skull")
    _paint_teeth(canvas, scan)


def _paint_teeth(canvas: Canvas, scan: Scan) -> None:
    angles = np.linspace(-1.15, 1.15, 13)
    for z in (679, 669):
        row = [(z, -44 - 34 * np.cos(a), 27 * np.sin(a), 3.2) for a in angles]
        canvas.paint(tube(canvas, row, (1.5, 1, 1)), ((0, scan.hu["tooth"] * 0.7), (2, scan.hu["tooth"])), "skull")


def paint_brain(canvas: Canvas, scan: Scan) -> None:
    """Fluid inside the skull, brain with folds, ventricles, falx, cerebellum and stem."""
    hu = scan.hu
    centre, radii = _BRAIN
    space = ellipsoid(canvas, centre, radii)
    canvas.paint(space, ((-1, hu["csf"] + 4),), "brain")
    if not space.mm.size:
        return
    z, y, x = (grid.astype(np.float64) for grid in canvas.at(space.box))
    folds = np.sin(x / 5.2 + np.sin(z / 7)) * np.sin(y / 5.6 + np.sin(x / 8)) * np.sin(z / 5.4 + np.sin(y / 9))
    cortex = np.maximum(space.mm + 3 + np.clip(folds * 5, 0, 5), 1.5 - np.abs(x)).astype(np.float32)
    canvas.paint(Field(space.box, cortex), ((0, hu["brain"] + 5), (4, hu["brain"] - 5)))
    for side in (1, -1):
        horn = [(790, -28, side * 13, 5), (798, 0, side * 12, 6), (790, 32, side * 18, 7), (772, 22, side * 28, 5)]
        canvas.paint(tube(canvas, horn), ((0, hu["csf"]),))
        canvas.paint(ellipsoid(canvas, (780, -4, side * 12), (14, 20, 9)), ((0, hu["brain"] + 4),))
    canvas.paint(tube(canvas, [(776, -10, 0, 3.5), (770, 14, 0, 3.5)]), ((0, hu["csf"]),))
    cerebellum = ellipsoid(canvas, (734, 44, 0), (25, 30, 47))
    canvas.paint(cerebellum.clip(space.over(cerebellum.box).mm), ((0, hu["csf"]), (2, hu["brain"] + 3)), "brain")
    canvas.paint(tube(canvas, [(768, 8, 0, 15), (744, 18, 0, 14), (722, 34, 0, 9)]), ((0, hu["brain"]),), "brain")


def paint_face(canvas: Canvas, scan: Scan) -> None:
    """Eyes with lens and socket fat, nose, sinuses, mouth and throat."""
    hu = scan.hu
    for x in (1, -1):
        canvas.paint(ellipsoid(canvas, (738, -58, x * 31), (17, 23, 18)), ((0, hu["fat"] + 15),), "body")
        canvas.paint(ellipsoid(canvas, (738, -68, x * 32), (12, 12, 12)), ((0, hu["muscle"]), (1.2, hu["eye"])), "body")
        canvas.paint(ellipsoid(canvas, (738, -77, x * 32), (4.5, 2.5, 4.5)), ((0, hu["lens"]),))
        canvas.paint(tube(canvas, [(738, -58, x * 31, 2.2), (744, -32, x * 14, 2.2)]), ((0, hu["muscle"]),))
        sinus = ellipsoid(canvas, (708, -52, x * 26), (16, 17, 14))
        canvas.paint(sinus, ((0, hu["mucus"]), (1.5, hu["air"])), "body")
        canvas.paint(ellipsoid(canvas, (714, -58, x * 6), (20, 26, 4.5), turned(tilt=8)), ((0, hu["air"]),), "body")
        canvas.paint(ellipsoid(canvas, (742, -48, x * 8), (10, 15, 5)), ((0, hu["air"] * 0.9),), "body")
        canvas.paint(ellipsoid(canvas, (714, 18, x * 74), (6, 6, 12)), ((0, hu["air"]),), "body")
        canvas.paint(ellipsoid(canvas, (690, 0, x * 52), (22, 16, 9)), ((0, hu["gland"] - 35),), "body")
    canvas.paint(ellipsoid(canvas, (724, -22, 0), (9, 10, 12)), ((0, hu["mucus"]), (1.5, hu["air"])), "body")
    canvas.paint(ellipsoid(canvas, (768, -82, 0), (12, 4.5, 18)), ((0, hu["air"]),), "body")
    tongue = ellipsoid(canvas, (674, -46, 0), (15, 28, 19))
    canvas.paint(tongue, ((0, hu["muscle"]),), "body")
    canvas.paint(ellipsoid(canvas, (689, -46, 0), (3, 22, 14)), ((0, hu["air"]),), "body")
    canvas.paint(tube(canvas, _PHARYNX, (1, 0.7, 1.2)), ((0, hu["mucus"]), (1.5, hu["air"])), "body")


def paint_neck(canvas: Canvas, scan: Scan) -> None:
    """Neck muscles with fat between them, larynx and thyroid."""
    hu = scan.hu
    neck = tube(canvas, [(588, 12, 0, 52), (640, 9, 0, 49), (682, 12, 0, 46)], (1, 0.95, 1))
    canvas.paint(neck, ((3, hu["fat"] * 0.75),))
    for x in (1, -1):
        strap = [(552, -46, x * 18, 8), (600, -22, x * 38, 10.5), (650, 4, x * 44, 11), (700, 22, x * 52, 9)]
        trapezius = [(570, 46, x * 50, 15), (610, 48, x * 32, 16), (680, 52, x * 20, 15)]
        side = [(560, 20, x * 32, 12), (620, 18, x * 26, 11), (690, 16, x * 20, 8)]
        for path in (strap, trapezius, side):
            canvas.paint(tube(canvas, path), ((0, hu["muscle"]),))
    canvas.paint(
        ellipsoid(canvas, (640, -22, 0), (16, 15, 17)),
        ((0, hu["muscle"]), (3, hu["cartilage"] + 60), (6, hu["muscle"])),
        "body",
    )
    hyoid = [(656, -22, -20, 3), (656, -42, 0, 3.5), (656, -22, 20, 3)]
    canvas.paint(tube(canvas, hyoid), ((0, hu["thin_bone"]),), "body")


def paint_thyroid(canvas: Canvas, scan: Scan) -> None:
    """Both lobes and the bridge, beside and before the trachea."""
    lobes = [(612, -8, -15, 7), (604, -18, 0, 4), (612, -8, 15, 7)]
    canvas.paint(tube(canvas, lobes), ((0, scan.hu["thyroid"]),), "thyroid_gland")
    for x in (1, -1):
        lobe = ellipsoid(canvas, (612, -4, x * 16), (20, 9, 7.5))
        canvas.paint(lobe, ((0, scan.hu["thyroid"]),), "thyroid_gland")
