"""Meaning: what the values of a case's label files stand for, as far as anything beside them declares it.

A file's name, a `structures.csv`, a `dataset.json` or a DICOM header can declare it. What nothing declares stays
unnamed and is noted; nobody guesses.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.anatomy import BODY, class_ids
from preprocessing.case import LESION, AnatomyKind, LabelFile
from preprocessing.decoding.dicom_header import DicomHeader
from preprocessing.sources.class_names import class_of, organ_of
from preprocessing.sources.dicom_labels import dicom_label
from preprocessing.sources.file_layout import anatomy_kind
from preprocessing.sources.folder.naming import core, is_anatomy, is_lesion
from preprocessing.sources.folder.pairing import LABELS_SPLIT

IDENTITY = tuple((id_, id_) for id_ in range(1, BODY))
SPINE = [f"C{n}" for n in range(1, 8)] + [f"T{n}" for n in range(1, 13)] + [f"L{n}" for n in range(1, 7)]
VERSE = {value: f"vertebrae_{name}" for value, name in enumerate(SPINE, 1)} | {26: "sacrum"}


@dataclass
class Meanings:
    """What a case's label files give it."""

    labels: list[LabelFile] = field(default_factory=list)
    lesion: list[str] = field(default_factory=list)
    anatomy: AnatomyKind = "none"
    notes: list[str] = field(default_factory=list)


def meanings(paths: list[Path], image_core: tuple[str, ...], dicom: Sequence[DicomHeader] = ()) -> Meanings:
    """The meaning of all label files of one image, whose name has the words `image_core`; a whole map beats masks.

    `dicom` are the headers of the segmentations and structure sets that refer to the image.
    """
    out = Meanings()
    whole = [path for path in paths if is_anatomy(path.name)]
    unused = 0
    found = [_meaning(path, image_core, out.notes) for path in paths]
    for label in [*found, *(dicom_label(header, out.notes) for header in dicom)]:
        if label is None:
            continue
        if label.binary and label.classes == ((1, LESION),):
            out.lesion.append(label.path)
        elif not whole or Path(label.path) in whole or any(id_ == LESION for _, id_ in label.classes):
            out.labels.append(label)
        else:
            unused += 1
    if unused:
        out.notes.append(f"{unused} further label files not used: {whole[0].name} names the anatomy")
    out.anatomy = anatomy_kind(out.labels)
    return out


def _meaning(path: Path, image_core: tuple[str, ...], notes: list[str]) -> LabelFile | None:
    """What one label file's values stand for; None, and a note, where nothing declares it."""
    if is_anatomy(path.name):
        return totalsegmentator_map(path)
    if LABELS_SPLIT.match(path.parent.name):
        declared, _ = read_dataset_json(path.parent.parent / "dataset.json")
        if declared:
            strangers = unnamed(declared)
            notes += [f"{path.name}: {', '.join(map(repr, strangers))} mean none of the classes"] if strangers else []
            label = declared_map(path, declared)
            return label if label.classes else None
    if "seg-vert" in path.name.lower():
        return vertebra_map(path)
    if is_lesion(path.name):
        return LabelFile(path=str(path), classes=((1, LESION),), binary=True)
    extra = [word for word in core(path.name) if word not in image_core]
    id_ = class_of(" ".join(extra or core(path.name)))
    if id_ is None:
        notes.append(f"{path.name}: its values have no declared meaning, not used as anatomy")
        return None
    return LabelFile(path=str(path), classes=((1, id_),), binary=True)


def totalsegmentator_map(path: Path) -> LabelFile:
    """A multilabel map of `total` ids; a `structures.csv` (structure, id) beside it overrides the ids by name."""
    table = path.parent / "structures.csv"
    if not table.is_file():
        return LabelFile(path=str(path), classes=IDENTITY)
    with table.open(newline="", encoding="utf-8", errors="replace") as stream:
        named = [(row.get("id") or "", class_of(row.get("structure") or "")) for row in csv.DictReader(stream)]
    pairs = sorted((int(value), id_) for value, id_ in named if value.strip().isdigit() and id_ is not None)
    return LabelFile(path=str(path), classes=tuple(pairs) or IDENTITY)


def vertebra_map(path: Path) -> LabelFile:
    """A BIDS `seg-vert` map: 1-7 C1-C7, 8-19 T1-T12, 20-25 L1-L6, 26 sacrum (the VerSe numbering)."""
    ids = class_ids()
    return LabelFile(path=str(path), classes=tuple((v, ids[name]) for v, name in VERSE.items() if name in ids))


def declared_map(path: Path, declared: dict[int, str]) -> LabelFile:
    """A label file with named values; a lesion keeps the organ that its name says, else the only one there is."""
    pairs = [(value, id_) for value, name in sorted(declared.items()) if (id_ := class_of(name)) is not None]
    organs = [id_ for _, id_ in pairs if id_ != LESION]
    only = organs[0] if len(organs) == 1 else None
    lesions = [(value, organ_of(declared[value]) or only) for value, id_ in pairs if id_ == LESION]
    return LabelFile(path=str(path), classes=(*pairs, *((value, organ) for value, organ in lesions if organ)))


def unnamed(declared: dict[int, str]) -> list[str]:
    """The declared names that mean no class of ours."""
    return [name for _, name in sorted(declared.items()) if class_of(name) is None]


def read_dataset_json(path: Path) -> tuple[dict[int, str], str]:
    """Label names by value (no background) and the modality of a Decathlon or nnU-Net folder; empty if unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = {}
        for key, value in (content.get("labels") or {}).items():
            number, name = (key, value) if str(key).isdigit() else (value, key)
            if isinstance(number, int | str) and int(number) > 0:
                labels[int(number)] = str(name)
        channels = content.get("channel_names") or content.get("modality") or {}
        return labels, str(channels.get("0", "")) if isinstance(channels, dict) else str(channels)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}, ""
