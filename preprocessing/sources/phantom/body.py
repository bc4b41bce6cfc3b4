"""Anatomy of the phantom: paints one scan's patient, organ by organ, into a label map and Hounsfield values.

Later organs cover earlier ones: outline, cavities, chest, belly, muscles, vessels, bones, head.
"""

from preprocessing.sources.phantom import abdomen as abdomen
from preprocessing.sources.phantom import chest as chest
from preprocessing.sources.phantom import head as head
from preprocessing.sources.phantom import skeleton as skeleton
from preprocessing.sources.phantom.canvas import Canvas, make_canvas
from preprocessing.sources.phantom.outline import paint_outline
from preprocessing.sources.phantom.patient import Scan


def paint_patient(scan: Scan) -> Canvas:
    """A canvas with the whole patient; `labels` hold class ids 0-118, `hu` the tissue without texture and noise."""
    canvas = make_canvas(scan)
    paint_outline(canvas, scan)
    chest.lung_cavity(canvas)
    canvas.paint(canvas.organs["cavity"], ((0, scan.hu["fat"]),))
    head.paint_neck(canvas, scan)
    abdomen.paint_muscles(canvas, scan)
    chest.paint_lungs(canvas, scan)
    chest.paint_heart(canvas, scan)
    abdomen.paint_liver(canvas, scan)
    abdomen.paint_gut(canvas, scan)
    abdomen.paint_solid_organs(canvas, scan)
    abdomen.paint_pelvis(canvas, scan)
    skeleton.paint_ribs(canvas, scan)
    skeleton.paint_girdles(canvas, scan)
    skeleton.paint_spine(canvas, scan)
    chest.paint_airway(canvas, scan)
    chest.paint_great_vessels(canvas, scan)
    abdomen.paint_vessels(canvas, scan)
    head.paint_skull(canvas, scan)
    head.paint_brain(canvas, scan)
    head.paint_face(canvas, scan)
    head.paint_thyroid(canvas, scan)
    return canvas
