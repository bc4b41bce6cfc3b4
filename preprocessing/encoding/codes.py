"""What a mask's name means in SNOMED CT, for a segment of a DICOM SEG: a class of `classes.csv`, a lesion, or none.

Most names are those of the code dictionary; `RENAMED` holds the others. A class that the dictionary lacks is an
anatomical structure with its name as label.
"""

from dataclasses import dataclass

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from preprocessing.anatomy import class_ids

LESIONS = ("lesion", "tumour", "tumor")
SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
RENAMED = {
    "lung_upper_lobe": "UpperLobeOfLung",
    "lung_middle_lobe": "MiddleLobeOfRightLung",
    "lung_lower_lobe": "LowerLobeOfLung",
    "thyroid_gland": "Thyroid",
    "small_bowel": "SmallIntestine",
    "urinary_bladder": "Bladder",
    "kidney_cyst": "Cyst",
    "iliac_vena": "IliacVein",
    "clavicula": "Clavicle",
    "costal_cartilages": "CostalCartilage",
    "rib": "Rib",
    "body": "EntireBody",
}


@dataclass(frozen=True)
class Meaning:
    """Codes of what a segment is: its category, its type, and where it lies; `side` modifies the last that is there."""

    category: Code
    kind: Code
    region: Code | None = None
    side: Code | None = None


def meaning_of(name: str) -> Meaning:
    """The codes of a mask's name: `liver`, `kidney_left`, `lesion`, `liver_lesion`, or any other name."""
    words = name.lower().replace(" ", "_").split("_")
    place = "_".join(word for word in words if word not in LESIONS)
    region, side = _structure(place)
    if len(place.split("_")) < len(words) or not place:
        return Meaning(codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, region, side if region else None)
    return Meaning(codes.SCT.AnatomicalStructure, region or codes.SCT.AnatomicalStructure, side=side)


def _structure(name: str) -> tuple[Code | None, Code | None]:
    """The code of a class of ours, None where it has none, and of its side."""
    if name not in {known.lower() for known in class_ids()}:
        return None, None
    words = [word for word in name.split("_") if word not in SIDES and not word.isdigit()]
    side = next((SIDES[word] for word in name.split("_") if word in SIDES), None)
    base = "_".join(words)
    keyword = RENAMED.get(base, "".join(word.capitalize() for word in words))
    if words[0] == "vertebrae":
        keyword = f"{words[1].upper()}Vertebra"
    return (getattr(codes.SCT, keyword) if keyword in codes.SCT.dir() else None), side
