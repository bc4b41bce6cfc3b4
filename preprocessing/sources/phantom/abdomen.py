"""The phantom's abdomen and pelvis: solid organs, gut with its contents, vessels, bladder, and the named muscles."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.sources.phantom.canvas import Box, Canvas, Field, Layers, ellipsoid, tube, tubes, turned
from preprocessing.sources.phantom.chest import diaphragm_mm
from preprocessing.sources.phantom.patient import Scan
from preprocessing.sources.phantom.skeleton import spine_y

_RNG_GUT, _RNG_LIVER, _RNG_CYST = 21, 22, 23
_STOMACH = [
    (352, 12, 44, 20),
    (344, 18, 68, 33),
    (312, -8, 72, 30),
    (276, -38, 56, 25),
    (256, -48, 22, 21),
    (258, -40, -8, 15),
    (262, -32, -24, 10),
]
_DUODENUM = [
    (260, -28, -28, 11),
    (252, -10, -42, 12),
    (222, 0, -46, 12),
    (200, 4, -28, 12),
    (200, 0, 8, 11),
    (222, -8, 28, 11),
]
_PANCREAS = [
    (222, -8, -28, 12),
    (240, -16, -22, 14),
    (258, -20, 0, 11),
    (270, -10, 28, 10.5),
    (288, 14, 60, 10),
    (302, 30, 78, 8),
]
_COLON = (
    [
        *[(68, 2, -84, 24), (110, 14, -94, 24), (165, 22, -96, 22), (208, 12, -92, 22), (216, -22, -84, 20)],
        *[(206, -52, -56, 19), (192, -62, -10, 19), (206, -58, 40, 18), (252, -38, 82, 18), (300, 4, 96, 18)],
    ],
    [
        *[(300, 8, 96, 17), (268, 26, 98, 16), (190, 30, 98, 15), (110, 16, 92, 15), (70, 0, 78, 15)],
        *[(50, -2, 40, 15), (70, -8, 4, 14), (58, 22, -22, 14), (40, 48, -4, 16), (8, 54, 0, 18), (-30, 46, 0, 13)],
    ],
)
_PORTAL = [(238, -6, -4, 6), (262, -8, -16, 6.5), (288, -12, -34, 6.5), (306, -8, -48, 6)]
_SPLENIC = [(262, -8, -14, 4.5), (266, 4, 20, 4.5), (284, 24, 62, 4), (304, 34, 82, 4)]
_CAVA = [(146, 16, -18, 10), (220, 14, -21, 11), (290, 14, -25, 12), (340, 10, -26, 12.5), (392, -6, -27, 12)]
_ILIACS = (
    (
        "iliac_artery",
        "artery",
        [(152, 7, 4, 7), (118, 14, 28, 5.5), (70, 10, 52, 5.5), (20, -42, 70, 5), (-60, -48, 78, 4.5)],
    ),
    (
        "iliac_vena",
        "vein",
        [(148, 16, -16, 8), (112, 26, 22, 7), (70, 22, 50, 7), (18, -32, 64, 6.5), (-60, -38, 70, 6)],
    ),
)
_MESENTERIC = [(256, -4, 6, 4), (230, -16, 4, 4), (180, -22, -4, 3.5), (130, -24, -20, 2.5)]


def paint_liver(canvas: Canvas, scan: Scan) -> None:
    """Liver under the right dome, gallbladder, and vessels inside the liver that the map does not name."""
    box = canvas.box((300, -5, -35), (115, 100, 125))
    z = canvas.at(box)[0]
    if not z.size:
        return
    mm = np.full(z.shape, 60, np.float32)
    for centre, radii, turn in (
        ((302, 6, -72), (92, 80, 60), turned(yaw=-6)),
        ((336, -28, -12), (42, 46, 74), turned(yaw=-12)),
    ):
        part = ellipsoid(canvas, centre, radii, turn)
        np.minimum(mm, part.over(box).mm, out=mm)
    liver = Field(box, mm).clip(_below_diaphragm(canvas, box))
    canvas.organs["liver"] = liver
    canvas.paint(liver, ((0, scan.hu["liver"]),), "liver")
    rng = scan.rng(_RNG_LIVER)
    for hu, root, ways in (("vein", (352, 14, -30), 5), ("portal", (306, -8, -48), 6)):
        starts, ends = _branches(rng, root, ways)
        vessels = tubes(canvas, starts, ends)
        inside = liver_inside(canvas, vessels)
        canvas.paint(vessels, ((0, scan.hu[hu]),), only=inside)
    canvas.paint(
        ellipsoid(canvas, (244, -46, -58), (30, 17, 15), turned(tilt=25)),
        ((0, scan.hu["wall"]), (2, scan.hu["bile"])),
        "gallbladder",
    )


def liver_inside(canvas: Canvas, field: Field) -> np.ndarray:
    """Which voxels of a field's box are named liver."""
    return canvas.labels[field.box] == 5


def _branches(rng: np.random.Generator, root: tuple[float, float, float], ways: int) -> tuple[np.ndarray, np.ndarray]:
    angles = np.linspace(-2.2, 1.4, ways) + rng.normal(0, 0.15, ways)
    aim = np.stack([np.sin(angles) * 0.8 - 0.2, np.cos(angles * 1.3) * 0.7, -np.cos(angles * 0.8)], axis=1)
    start = np.repeat(np.asarray(root, float)[None], ways, axis=0)
    size, starts, ends = np.full(ways, 5.0), [], []
    for _ in range(3):
        aim /= np.linalg.norm(aim, axis=1, keepdims=True)
        end = start + aim * rng.uniform(22, 34, (len(aim), 1))
        starts.append(np.c_[start, size])
        ends.append(np.c_[end, size * 0.75])
        start, size = np.repeat(end, 2, axis=0), np.repeat(size * 0.7, 2)
        aim = np.repeat(aim, 2, axis=0) + rng.normal(0, 0.45, (2 * len(aim), 3))
    return np.concatenate(starts), np.concatenate(ends)


def paint_solid_organs(canvas: Canvas, scan: Scan) -> None:
    """Spleen, kidneys with cortex, medulla and sinus (some with a cyst), adrenals, pancreas."""
    hu = scan.hu
    spleen = ellipsoid(canvas, (304, 38, 92), (58, 46, 29), turned(roll=-25, tilt=-15))
    canvas.paint(spleen.clip(_below_diaphragm(canvas, spleen.box)), ((0, hu["spleen"]),), "spleen")
    cyst = scan.rng(_RNG_CYST)
    for side, x, z in (("left", 1, 262), ("right", -1, 246)):
        _paint_kidney(canvas, scan, side, x, z, cyst)
        gland = [(z + 50, 30, x * 42, 3), (z + 66, 26, x * 34, 4), (z + 54, 38, x * 30, 2.5)]
        canvas.paint(tube(canvas, gland), ((0, hu["gland"]),), f"adrenal_gland_{side}")
    canvas.paint(tube(canvas, _PANCREAS), ((0, hu["pancreas"]),), "pancreas")


def _below_diaphragm(canvas: Canvas, box: Box) -> NDArray[np.float32]:
    """Distance to the belly: inside the cavity's wall and under the diaphragm."""
    under = canvas.at(box)[0] - diaphragm_mm(canvas, box) + 5
    return np.maximum(canvas.organs["cavity"].mm[box] + 3, under)


def _paint_kidney(canvas: Canvas, scan: Scan, side: str, x: int, z: float, rng: np.random.Generator) -> None:
    hu, name = scan.hu, f"kidney_{side}"
    turn = turned(roll=x * 30, yaw=-x * 12)
    layers = ((0, hu["kidney_cortex"]), (8, hu["kidney_medulla"]))
    canvas.paint(ellipsoid(canvas, (z, 42, x * 64), (55, 30, 27), turn), layers, name)
    sinus = ellipsoid(canvas, (z, 34, x * 52), (24, 12, 15), turn)
    canvas.paint(sinus, ((0, hu["fat"]), (5, hu["kidney_pelvis"])), "body")
    if rng.random() < 0.2:
        where = (z + rng.uniform(-35, 35), 58, x * rng.uniform(74, 86))
        cyst = ellipsoid(canvas, where, np.full(3, rng.uniform(8, 16)))
        canvas.paint(cyst, ((0, hu["bile"]),), f"kidney_cyst_{side}")


def paint_gut(canvas: Canvas, scan: Scan) -> None:
    """Stomach, duodenum, small bowel and colon; fluid lies at the back, gas in front, as in a lying patient."""
    hu, rng = scan.hu, scan.rng(_RNG_GUT)
    oral = rng.random() < 0.25
    chyme = rng.uniform(120, 260) if oral else hu["chyme"]
    for path in _small_bowel(rng):
        _paint_gut(canvas, tube(canvas, path), ((0, hu["wall"]), (3, chyme + rng.normal(0, 8))), "small_bowel")
    _paint_gut(canvas, tube(canvas, _DUODENUM), ((0, hu["wall"]), (3.5, chyme)), "duodenum")
    for path in _COLON:
        colon = _haustra(np.array(path, float), rng)
        _paint_gut(canvas, tube(canvas, colon), ((0, hu["wall"]), (3, hu["stool"])), "colon")
        _paint_gas(canvas, tube(canvas, colon * [1, 1, 1, 0.82] - [0, rng.uniform(3, 7), 0, 0]), rng, hu["air"])
    fed = rng.uniform(0.75, 1.08)
    stomach = np.array(_STOMACH, float) * [1, 1, 1, fed]
    field = tube(canvas, stomach)
    y = canvas.at(field.box)[1]
    field = field.clip(_below_diaphragm(canvas, field.box) + 1)
    canvas.paint(field, ((0, hu["wall"]), (4.5, chyme)), "stomach")
    level = np.float32(rng.uniform(-40, -15))
    canvas.paint(Field(field.box, np.maximum(field.mm + 5, y - level)), ((0, hu["air"]),))


def _paint_gut(canvas: Canvas, field: Field, layers: Layers, label: str) -> None:
    if field.mm.size:
        limit = canvas.organs["cavity"].mm[field.box]
        canvas.paint(field.clip(limit + 2), layers, label)


def _paint_gas(canvas: Canvas, field: Field, rng: np.random.Generator, air: float) -> None:
    """Gas bubbles along a gut, by a wave over the body axes."""
    if not field.mm.size:
        return
    z, _, x = (grid.astype(np.float64) for grid in canvas.at(field.box))
    wave = np.sin(z / 13 + rng.uniform(0, 6)) + np.sin(x / 11 + rng.uniform(0, 6))
    canvas.paint(field.clip(((0.5 - wave) * 8).astype(np.float32)), ((3.5, air),))


def _haustra(path: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A finer path with the colon's bulges."""
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path[:, :3], axis=0), axis=1))]
    fine = np.arange(0, along[-1], 9.0)
    out = np.stack([np.interp(fine, along, column) for column in path.T], axis=1)
    out[:, 3] *= 1 + 0.16 * np.sin(fine / 5.5 + rng.uniform(0, 6))
    out[:, :3] += np.cumsum(rng.normal(0, 0.8, (len(out), 3)), axis=0).clip(-6, 6)
    return out


def _small_bowel(rng: np.random.Generator) -> list[np.ndarray]:
    """Loops of gut that fold to and fro between colon and bladder."""
    loops = []
    for row, z in enumerate(np.arange(62, 190, 21.0)):
        for y in (-60.0, -39.0, -18.0):
            reach = (44 if z < 90 else 58) - (12 if y > -20 else 0)
            x = np.linspace(-reach, reach, 12)
            wave = 9 * np.sin(x / 11 + rng.uniform(0, 6))
            lift = 7 * np.sin(x / 17 + rng.uniform(0, 6) + row)
            radius = np.full(12, rng.uniform(9.5, 12.5))
            loops.append(np.stack([z + lift, y + wave, x + rng.normal(0, 3), radius], axis=1))
    return loops


def paint_vessels(canvas: Canvas, scan: Scan) -> None:
    """Inferior vena cava, portal and splenic vein, mesenteric and renal vessels (unnamed), iliac vessels."""
    hu = scan.hu
    for name, y, x, z in (("vein", 6, 1, 260), ("vein", 6, -1, 246), ("artery", 12, 1, 256), ("artery", 12, -1, 242)):
        renal = [(250, y, x * 8, 4), (z, y + 18, x * 50, 3.5)]
        canvas.paint(tube(canvas, renal), ((0, hu[name]),), "body")
    canvas.paint(tube(canvas, _MESENTERIC), ((0, hu["artery"]),), "body")
    canvas.paint(tube(canvas, _CAVA, (1, 0.85, 1.1)), ((0, hu["wall"]), (1, hu["vein"])), "inferior_vena_cava")
    for path in (_PORTAL, _SPLENIC):
        canvas.paint(tube(canvas, path), ((0, hu["wall"]), (0.8, hu["portal"])), "portal_vein_and_splenic_vein")
    for name, tissue, path in _ILIACS:
        for side, x in (("left", 1), ("right", -1)):
            points = np.array(path, float) * [1, 1, x, 1]
            points[0, 2] = path[0][2]
            canvas.paint(tube(canvas, points), ((0, hu["wall"]), (0.8, hu[tissue])), f"{name}_{side}")


def paint_pelvis(canvas: Canvas, scan: Scan) -> None:
    """Bladder with urine; prostate, or a womb that the map does not name."""
    hu, rng = scan.hu, scan.rng(_RNG_CYST + 1)
    full = rng.uniform(0.7, 1.15)
    for x in (1, -1):
        wall = ellipsoid(canvas, (5, 18, x * 60), (42, 38, 9), turned(roll=-x * 12))
        canvas.paint(wall, ((0, hu["muscle"]),), "body")
    if scan.patient.female:
        womb = ellipsoid(canvas, (40, 16, 3), (24, 20, 28), turned(tilt=-20))
        canvas.paint(womb, ((0, hu["gland"] + 25), (14, hu["gland"])), "body")
    else:
        canvas.paint(ellipsoid(canvas, (-22, -8, 0), (17, 16, 21)), ((0, hu["gland"]),), "prostate")
    bladder = ellipsoid(canvas, (18, -24, 0), np.array((33, 27, 38)) * full)
    canvas.paint(bladder, ((0, hu["wall"]), (3.5, hu["urine"])), "urinary_bladder")


def paint_muscles(canvas: Canvas, scan: Scan) -> None:
    """Back muscles beside the spine, iliopsoas and the three gluteal muscles, with fat between them."""
    hu = scan.hu
    layers = ((0, hu["fat"] * 0.4), (1.5, hu["muscle"]))
    for side, x in (("left", 1), ("right", -1)):
        mirror = np.array([1, 1, x, 1.0])
        back = [
            (z, spine_y(z) + dy, 30, r)
            for z, dy, r in (
                (40, 20, 11),
                (100, 34, 19),
                (160, 40, 20),
                (240, 38, 20),
                (350, 33, 16),
                (450, 31, 14),
                (560, 30, 12),
                (650, 33, 11),
            )
        ]
        psoas = [
            (278, 44, 24, 8),
            (230, 34, 36, 14),
            (170, 26, 46, 19),
            (110, 24, 58, 21),
            (60, 0, 74, 20),
            (10, -32, 88, 15),
            (-40, -2, 108, 10),
        ]
        glutei = (
            ("gluteus_maximus", (18, 84, 66), (72, 19, 52), turned(roll=-x * 25, tilt=-12)),
            ("gluteus_medius", (64, 22, 122), (58, 48, 14), turned(roll=x * 30, yaw=x * 20)),
            ("gluteus_minimus", (48, 6, 116), (40, 32, 10), turned(roll=x * 28, yaw=x * 22)),
        )
        for name, centre, radii, turn in glutei:
            centre = np.array(centre) * mirror[:3]
            canvas.paint(ellipsoid(canvas, centre, radii, turn), layers, f"{name}_{side}")
        canvas.paint(tube(canvas, np.array(back) * mirror, (1, 0.9, 1.2)), layers, f"autochthon_{side}")
        canvas.paint(tube(canvas, np.array(psoas) * mirror), layers, f"iliopsoas_{side}")
