"""Which class a structure's name means: the 117 TotalSegmentator names, aliases of public sets, words for tumours."""

import re
from functools import cache

from preprocessing.anatomy import BODY, class_ids
from preprocessing.case import LESION

ALIASES = {
    "oesophagus": "esophagus",
    "bladder": "urinary_bladder",
    "gall_bladder": "gallbladder",
    "postcava": "inferior_vena_cava",
    "ivc": "inferior_vena_cava",
    "svc": "superior_vena_cava",
    "small_intestine": "small_bowel",
    "spinalcord": "spinal_cord",
    "thyroid": "thyroid_gland",
}
LESION_NAME = re.compile(r"tumou?r|cancer|lesion|metasta|nodule|lymph[_ ]?node|\bgtv|neoplasm|carcinoma", re.IGNORECASE)


def class_of(name: str) -> int | None:
    """The class id that a structure's name means, `LESION` for a tumour, None where it means no single class."""
    if LESION_NAME.search(name):
        return LESION
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = ALIASES.get(plain, plain)
    ids = _organ_ids()
    parts = plain.split("_")
    side = [part for part in parts if part in ("left", "right")]
    turned = "_".join([part for part in parts if part not in side] + side)
    bare = turned.replace("_gland", "")
    candidates = (plain, turned, bare, bare.replace("adrenal", "adrenal_gland"))
    return next((ids[known] for known in candidates if known in ids), None)


@cache
def _organ_ids() -> dict[str, int]:
    return {known.lower(): id_ for known, id_ in class_ids().items() if id_ < BODY}


def organ_of(lesion_name: str) -> int | None:
    """The class of the organ that a tumour's name says it lies in (`liver tumour`: liver), None where it says none."""
    rest = re.sub(rf"\w*({LESION_NAME.pattern})\w*", "", lesion_name.replace("_", " "), flags=re.IGNORECASE)
    return class_of(rest) if rest.strip() else None
