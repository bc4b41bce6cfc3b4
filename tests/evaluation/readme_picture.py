"""Makes the picture of the README, evaluation/result.png, from the phantom (never from a real CT).

python tests/evaluation/readme_picture.py             a phantom's chest: dose pair, total variation, anatomy
python tests/evaluation/readme_picture.py STRIP.png   a picture of a sweep: runs/evaluate/<fingerprint>/pictures/
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.baselines import total_variation
from evaluation.pictures import png, strip
from evaluation.tasks.context import Panel, Picture
from infra.lake import open_lake
from preprocessing.convert import convert_case
from preprocessing.recipe import paper
from preprocessing.regions import WINDOWS, Window
from preprocessing.sources.phantom import PhantomSource
from preprocessing.store import StoredCase, open_case

TARGET = Path(__file__).resolve().parents[2] / "evaluation" / "result.png"
SLAB_MM, ARM_MM, WEIGHT_HU = 160, 40, 80


def phantom_strip() -> bytes:
    """Converts one phantom patient at 1 mm and draws the middle of its chest."""
    source = PhantomSource(patients=1)
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder)
        row = convert_case(source.cases()[0], source, paper(), lake)
        return png(strip(_picture(open_case(lake, row.key))))


def _picture(case: StoredCase) -> Picture:
    chest = next(region for region in case.record.regions if region.name == "chest")
    first = (chest.z_start + chest.z_stop - SLAB_MM) // 2
    box = np.s_[first : first + SLAB_MM, :, ARM_MM:-ARM_MM]
    anatomy, low_dose, reference = (case.read_all(name)[box] for name in ("anatomy", "low_dose", "noise_free"))
    window = WINDOWS["chest"]
    smooth = total_variation(np.clip(low_dose, window.low_hu, window.high_hu), WEIGHT_HU)
    panels = [
        Panel("anatomy, 118 classes", anatomy),
        Panel("low dose (input)", low_dose, window),
        Panel("total variation", smooth, window),
        Panel("noise-free (reference)", reference, window),
        Panel("difference, HU", smooth - reference, Window(400, 0)),
    ]
    return Picture(f"{case.record.case}, chest, 1 mm: low dose, total variation and the noise-free reference", panels)


def shrunk(picture: bytes) -> bytes:
    """The PNG with a palette of 256 colours."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    TARGET.write_bytes(shrunk(Path(sys.argv[1]).read_bytes() if sys.argv[1:] else phantom_strip()))
