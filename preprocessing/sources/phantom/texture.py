"""What the label map does not determine: texture of tissues, fat in muscle, density of lungs, the scanner's blur."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.sparse import csr_array

from preprocessing.anatomy import BODY, NUM_IDS, class_names
from preprocessing.sources.phantom.canvas import Canvas
from preprocessing.sources.phantom.patient import Scan

_RNG_TEXTURE = 31
_BLUR = (0.14, 0.72, 0.14)
_AMPLITUDE_HU = {
    24: ("lung",),
    60: ("skull",),
    45: ("vertebrae", "hip"),
    40: ("rib", "sacrum", "femur", "humerus", "scapula", "clavicula", "sternum"),
    22: ("colon",),
    14: ("small_bowel",),
    10: ("stomach", "pancreas", "gluteus", "autochthon", "iliopsoas"),
    8: ("kidney", "spleen"),
    3: ("brain", "spinal_cord", "gallbladder"),
    2: ("urinary_bladder", "trachea"),
}
_OTHER_HU = 6


def add_texture(canvas: Canvas, scan: Scan) -> NDArray[np.float32]:
    """The canvas' Hounsfield values with texture and the scanner's blur, float32."""
    rng = scan.rng(_RNG_TEXTURE)
    spacing = scan.geometry.spacing_mm
    broad = smooth_field(rng, canvas.hu.shape, spacing, 15.0)
    fine = smooth_field(rng, canvas.hu.shape, spacing, 5.0)
    amplitude = np.take(_amplitudes() * np.float32(rng.uniform(0.8, 1.3)), canvas.labels)
    hu = canvas.hu + amplitude * (np.float32(0.65) * broad + np.float32(0.75) * fine)
    _marble(canvas, scan, hu, broad, fine, rng)
    _sag(canvas, scan, hu, rng)
    for axis in range(3):
        hu = correlate1d(hu, _BLUR, axis=axis, mode="nearest")
    return hu


def _amplitudes() -> NDArray[np.float32]:
    values = np.full(NUM_IDS, _OTHER_HU, np.float32)
    for id_, name in class_names().items():
        for amplitude, beginnings in _AMPLITUDE_HU.items():
            if name.startswith(beginnings):
                values[id_] = amplitude
    values[0] = 0
    return values


def smooth_field(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], length_mm: float
) -> NDArray[np.float32]:
    """A random field of mean 0 and deviation about 1 whose correlation falls off over `length_mm` on every axis."""
    knots = [max(2, int(np.ceil(n * s / length_mm)) + 3) for n, s in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal(knots, dtype=np.float32)
    for axis, (n, s, k) in enumerate(zip(shape, spacing_mm, knots, strict=True)):
        place = np.arange(n) * s / length_mm + 1
        bells = np.exp(-0.5 * ((place[:, None] - np.arange(k)) / 0.55) ** 2)
        bells /= np.sqrt((bells**2).sum(1, keepdims=True))
        weights = csr_array(np.where(bells > 1e-3, bells, 0).astype(np.float32))
        lines = np.moveaxis(field, axis, 0)
        spread = (weights @ lines.reshape(k, -1)).reshape(n, *lines.shape[1:])
        field = np.moveaxis(spread, 0, axis)
    return np.ascontiguousarray(field)


def _marble(canvas: Canvas, scan: Scan, hu: NDArray, broad: NDArray, fine: NDArray, rng: np.random.Generator) -> None:
    """Fat streaks in muscle, strands of tissue in fat; how much differs between patients."""
    body = canvas.labels == BODY
    muscle = body & (canvas.hu > 20) & (canvas.hu < 90)
    level = np.float32(1.9 - 0.03 * scan.patient.fat_mm + rng.normal(0, 0.15))
    share = np.clip((fine + np.float32(0.5) * broad - level) * np.float32(0.9), 0, 0.85)
    septa = np.clip(np.float32(0.5) - np.abs(broad) * np.float32(4), 0, 0.5)
    share = np.maximum(share, septa) * muscle
    hu += share * (np.float32(scan.hu["fat"]) - hu)
    fat = body & (canvas.hu < -55) & (canvas.hu > -160)
    share = np.clip((fine - np.float32(1.35)) * np.float32(0.6), 0, 0.6) * fat
    hu += share * (np.float32(20) - hu)


def _sag(canvas: Canvas, scan: Scan, hu: NDArray, rng: np.random.Generator) -> None:
    """A lying patient's lungs are denser at the back."""
    if "lung" in canvas.organs:
        field = canvas.organs["lung"]
        slope = np.float32(rng.uniform(0.25, 0.75))
        hu[field.box] += (field.mm < -2) * (canvas.hu[field.box] < -500) * slope * canvas.y[field.box]
