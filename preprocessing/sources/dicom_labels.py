"""What the parts of a DICOM SEG or RTSTRUCT mean: a part has a label and a type, and may name the organ it lies in."""

from collections.abc import Callable, Sequence
from pathlib import Path

from preprocessing.case import LESION, LabelFile
from preprocessing.decoding.dicom_header import DicomHeader
from preprocessing.sources.class_names import class_of

Meaning = Callable[[Sequence[str]], Sequence[int]]
"""Label, type and organ of a part to its class ids; `LESION` and an organ beside it: a lesion that keeps its organ."""


def by_names(names: Sequence[str]) -> list[int]:
    """The classes that the names of a part mean; a lesion keeps the organ it is said to lie in."""
    label, kind, organ = (class_of(name) for name in names)
    lesion = [LESION] if LESION in (label, kind) else []
    return lesion + [id_ for id_ in (label, kind, organ) if id_ not in (None, LESION)][:1]


def dicom_label(header: DicomHeader, notes: list[str], meaning: Meaning = by_names) -> LabelFile | None:
    """The segments of a SEG, or the regions of an RTSTRUCT, by number; None where they mean no class.

    Their names may be anything that somebody typed, so a note counts them and does not repeat them.
    """
    pairs: list[tuple[int, int]] = []
    named = 0
    for number, names in header.parts:
        ids = meaning(names)
        pairs += [(number, id_) for id_ in ids]
        named += bool(ids)
    if named < len(header.parts):
        notes.append(
            f"{Path(header.path).name}: {len(header.parts) - named} of {len(header.parts)} structures of this DICOM "
            f"{header.shown_modality} have names that mean none of the classes"
        )
    return LabelFile(path=header.path, classes=tuple(pairs)) if pairs else None


def always_lesion(_names: Sequence[str]) -> list[int]:
    """A lesion, whatever the part is called: for sets that draw nothing else."""
    return [LESION]
