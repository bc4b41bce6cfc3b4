"""What kind of image a DICOM frame is: a slice of a CT volume, or a picture that was made from one.

ImageType says so in words that vendors choose. DERIVED\\SECONDARY alone is no verdict: anonymisers, converters and
compressors write it over true slices. Such a frame counts as `derived`, and as a slice, where it is a CT image in the
axial plane with a rescale of its own and nothing names a reformat or projection; whether its stack is even is asked
later (`check_derived`).
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.case import CaseError
from preprocessing.decoding.slice_grid import distances, is_even

KIND_TAGS = ["SOPClassUID", "ImageType", "BitsStored", "SeriesDescription", "DerivationDescription"]
KIND_TAGS += ["DerivationCodeSequence"]
DERIVED = "DERIVED\\SECONDARY"
REFORMATS = {
    **dict.fromkeys(("MPR", "MPR_THICK", "REFORMATTED", "REFORMAT", "CPR", "CURVED"), "reformatted"),
    **dict.fromkeys(("MIP", "MINIP", "MIN IP", "MAX_IP", "MIN_IP", "MAXIMUM", "MINIMUM"), "projected"),
    **dict.fromkeys(("PROJECTION IMAGE", "RAYSUM"), "projected"),
    **dict.fromkeys(("SUBTRACTION", "DIVISION", "MULTIPLICATION", "STD_DEVIATION", "QUANTITY"), "calculated"),
    **dict.fromkeys(("VRT", "SSD", "VOLUME RENDERED", "VOLREN", "RENDERED"), "rendered"),
}
LEFT_OUT_WORDS = {
    "LOCALIZER": "localizer",
    **REFORMATS,
    **dict.fromkeys(("SCREEN SAVE", "SCREENSHOT", "SCREEN_SAVE"), "screenshot"),
    **dict.fromkeys(("DOSE_INFO", "DOSE REPORT", "PROT"), "dose or protocol page"),
}
LEFT_OUT_CODES = {  # DICOM PS3.16, CID 7203
    **dict.fromkeys(("113072", "113073"), "reformatted"),
    **dict.fromkeys(("113048", "113051", "113078", "113079"), "projected"),
    **dict.fromkeys(("113046", "113047", "113053", "113062", "113076"), "calculated"),
    **dict.fromkeys(("113074", "113075"), "rendered"),
}
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage and its multi-frame kin
CT_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.2{kin}" for kin in ("", ".1", ".2"))  # classic, enhanced, legacy converted
OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")  # RescaleType of maps that a dual-energy CT calculates
PLAIN_KINDS = {"AXIAL", "VOLUME"}
LEAST_BITS = 9  # a grey picture of 8 bits has lost its HU
MOST_OBLIQUE = 35.0  # degrees between a slice's normal and the body's axis: a tilted gantry, not a coronal reformat
FEWEST_SLICES = 3
MOST_OVERLAP = 2.0  # thickness over distance; thicker slabs are most often projections


def why_left_out(
    kind: Sequence[str], root: Dataset, unit: str, slope: float | None, orientation_xyz: Sequence[float]
) -> str:
    """Why an image is no slice of a volume, by the words of its type, its file's root and its rescale; "" if it is."""
    sop_class = str(root.get("SOPClassUID") or "").strip()
    if sop_class.startswith(CAPTURE) and sop_class[len(CAPTURE) :][:1] in ("", "."):
        return "secondary capture"
    if reason := next((LEFT_OUT_WORDS[word] for word in kind if word in LEFT_OUT_WORDS), ""):
        return reason
    if unit in OTHER_UNITS:
        return f"calculated (RescaleType {unit}, not HU)"
    if not is_derived(kind):
        return ""
    reason = _doubt(kind, root, sop_class, slope, orientation_xyz)
    return f"derived (ImageType {DERIVED}, {reason})" if reason else ""


def is_derived(kind: Sequence[str]) -> bool:
    """Whether an image type says that the image was made from other ones after the examination."""
    return {*DERIVED.split("\\")} <= {*kind}


def _doubt(
    kind: Sequence[str], root: Dataset, sop_class: str, slope: float | None, orientation_xyz: Sequence[float]
) -> str:
    """Why a derived image may not be a slice."""
    further = {*kind} - {*DERIVED.split("\\")}
    bits = root.get("BitsStored")
    if sop_class not in CT_IMAGES:
        return "no CT Image Storage"
    if further and not further & PLAIN_KINDS:
        return "not AXIAL"
    if slope is None:
        return "no rescale to HU"
    if isinstance(bits, int) and bits < LEAST_BITS:
        return f"{bits} bits a pixel"
    if not _is_axial(orientation_xyz):
        return "not in the axial plane"
    return _described(root)


def _is_axial(orientation_xyz: Sequence[float]) -> bool:
    if len(orientation_xyz) != 6:
        return False
    normal = np.cross(orientation_xyz[:3], orientation_xyz[3:])
    return abs(normal[2]) >= np.cos(np.radians(MOST_OBLIQUE)) * max(float(np.linalg.norm(normal)), 1e-6)


def _described(root: Dataset) -> str:
    """What the derivation's codes, or words of its or the series' description, say was done; "" if nothing of note."""
    for code in root.get("DerivationCodeSequence") or ():
        if reason := LEFT_OUT_CODES.get(str(code.get("CodeValue") or "")):
            return f"coded as {reason}"
    text = f"{root.get('DerivationDescription') or ''} {root.get('SeriesDescription') or ''}".upper()
    words = re.findall(r"[A-Z]+", text)
    reason = next((REFORMATS[word] for word in words if word in REFORMATS), "")
    return f"described as {reason}" if reason else ""


def check_derived(positions_xyz: NDArray, thickness_mm: float, name: str) -> None:
    """Refuses a stack of derived slices at these positions (n, 3) that is no plain volume.

    Raises:
        CaseError: it is too short, uneven, or of slabs that overlap.
    """
    doubt = ""
    gaps = distances(positions_xyz)
    if len(positions_xyz) < FEWEST_SLICES:
        doubt = f"only {len(positions_xyz)} of them"
    elif not is_even(positions_xyz):
        doubt = f"their distance varies from {gaps.min():g} to {gaps.max():g} mm"
    elif thickness_mm > MOST_OVERLAP * np.median(gaps):
        doubt = f"slabs of {thickness_mm:g} mm every {np.median(gaps):g} mm"
    if doubt:
        raise CaseError(
            f"{name}: its slices are derived (ImageType {DERIVED}) and look like no plain volume ({doubt}); "
            "ingest the original slices."
        )
