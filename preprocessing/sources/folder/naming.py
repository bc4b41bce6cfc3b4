"""Names: what a file's name says of its role, its case and its patient.

A name is cut into words at `_ - .` and spaces. The words below decide, never a guess at the content:

label    first or last word is one of LABEL_WORDS (`pt_7_seg`, `segmentation-12`), or any word of LESION_WORDS
lesion   any word of LESION_WORDS (`lesion`, `ct_tumour`, `case3_gtvp`); also `CT_mask` beside `CT_image`
anatomy  last word is `anatomy`: values are TotalSegmentator v2 `total` ids
partner  a label belongs to the image of the same folder whose other words are the same (`pt_7_seg`, `pt_7_ct`)
patient  words of VISIT_WORDS are left out (`x_baseline`, `x_followup` are one patient), as is a BIDS `ses-…`
"""

import re
from pathlib import PurePosixPath

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
LABEL_WORDS = {"seg", "segm", "segmentation", "segmentations", "label", "labels", "labelmap", "mask", "masks", "msk"}
LESION_WORDS = {"lesion", "lesions", "tumor", "tumors", "tumour", "tumours", "cancer", "gtv", "gtvp", "gtvn", "gtvt"}
IMAGE_WORDS = {"ct", "image", "img", "imaging", "volume", "scan"}
CHANNEL = re.compile(r"_0000$")
VISIT = re.compile(
    r"^(baseline|follow|up|followup|fu|visit|session|ses|timepoint|tp|prior|pre|post|arterial|venous|portal|delayed|native"
    r"|noncontrast)$|^(followup|fu|visit|session|timepoint|tp)\d+$"
)
VISIT_WITH_NUMBER = {"visit", "session", "ses", "timepoint", "tp", "followup", "fu"}
BIDS_SEG = re.compile(r"(^|_)(seg|desc|space|res)-[^_]*")


def stem(name: str) -> str:
    """A file's name without its image suffix."""
    lower = name.lower()
    return next((name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if lower.endswith(suffix)), name)


def words(text: str) -> list[str]:
    """The lower-case words of a name."""
    return [word for word in re.split(r"[-_.\s]+", text.lower()) if word]


def is_lesion(name: str) -> bool:
    """True where the name says that the mask is a lesion's."""
    parts = words(stem(name))
    return bool(LESION_WORDS & set(parts)) or parts == ["ct", "mask"]


def is_anatomy(name: str) -> bool:
    """True where the name promises TotalSegmentator ids."""
    return words(stem(name))[-1:] == ["anatomy"]


def is_label(name: str) -> bool:
    """True where the name is one of a label, a mask or an anatomy map."""
    parts = words(stem(name))
    ends = set(parts[:1] + parts[-1:])
    return bool(ends & LABEL_WORDS or LESION_WORDS & set(parts)) or is_anatomy(name)


def core(name: str) -> tuple[str, ...]:
    """The words that an image and its labels share: without those of their roles at either end."""
    parts = words(BIDS_SEG.sub("", CHANNEL.sub("", stem(name))))
    roles = LABEL_WORDS | LESION_WORDS | IMAGE_WORDS | {"anatomy"}
    while parts and parts[-1] in roles:
        parts.pop()
    while parts and parts[0] in roles:
        parts.pop(0)
    return tuple(parts)


def safe(text: str) -> str:
    """A case id: letters, digits, `. _ -`; a folder's slash becomes two underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip("/").replace("/", "__")).strip("-._") or "case"


def case_name(relative: str, root: str) -> str:
    """The id of an image by its path: its folder's where its own name says nothing (`ct`, `CT_image`), else both.

    `relative` is the posix path of the image inside the source, `root` the name of the source's folder.
    """
    path = PurePosixPath(relative)
    folder = "" if str(path.parent) == "." else str(path.parent)
    folder = re.sub(r"(^|/)images(Tr|Ts|Val)?$", "", folder)
    if not core(path.name):
        return safe(folder or root)
    own = re.sub(r"[-_.](ct|image|img)$", "", CHANNEL.sub("", stem(path.name)), flags=re.IGNORECASE)
    return safe(f"{folder}/{own}" if folder else own)


def patient_name(case_id: str) -> str:
    """The key that all visits of one patient share, from a case id that was made of a path."""
    subject = re.search(r"(?:^|__|_)(sub-[A-Za-z0-9]+)(?=_|$)", case_id)
    if subject:
        return case_id[: subject.end()]
    kept = [_without_visit(part) for part in case_id.split("__")]
    return "__".join(part for part in kept if part) or case_id


def _without_visit(part: str) -> str:
    """One path component without the words of a visit, and without the number that follows one."""
    kept: list[str] = []
    after_visit = False
    for word in re.split(r"([-_.])", part):
        lower = word.lower()
        if VISIT.match(lower):
            after_visit = lower in VISIT_WITH_NUMBER
        elif after_visit and (lower.isdigit() or lower in "-_."):
            after_visit = not lower.isdigit()
        else:
            after_visit = False
            kept.append(word)
    return re.sub(r"([-_.])[-_.]+", r"\1", "".join(kept)).strip("-_.")
