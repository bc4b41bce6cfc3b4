"""The text in front of NRRD and MetaImage voxels: its fields, and whether it states numbers where ITK would guess.

ITK reads `7x5` as 7 and takes 1 mm, or no turn at all, for a line that is missing or spoilt; a CT may not be guessed.
"""

import re
from pathlib import Path

from preprocessing.case import CaseError

HEADER_BYTES = 1 << 16
NRRD, METAIMAGE = (".nrrd", ".nhdr"), (".mha", ".mhd")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
VECTOR = rf"(?:none|\(\s*{NUMBER}(?:\s*,\s*{NUMBER})*\s*\))"
NUMBERS = rf"{NUMBER}(?:\s+{NUMBER})*"
NRRD_FORMS = {"sizes": NUMBERS, "spacedirections": rf"{VECTOR}(?:\s+{VECTOR})*", "spaceorigin": VECTOR}
METAIMAGE_FORM = re.compile(
    r"^[ \t]*(DimSize|ElementSpacing|ElementSize|Offset|Position|Origin|TransformMatrix|Rotation|Orientation)"
    r"[ \t]*[=:]([^\r\n]*)",
    re.MULTILINE,
)


def head_of(path: Path) -> bytes:
    """The beginning of a file, in which its whole header lies."""
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def nrrd_fields(head: bytes) -> tuple[dict[str, str], int | None]:
    """The fields of a NRRD header, keys in lower case without blanks, and where it ends; None where it does not."""
    end = re.search(rb"\r?\n\r?\n", head)
    fields = {}
    for line in head[: end.start() if end else len(head)].decode("latin-1").splitlines()[1:]:
        key, mark, value = line.partition(":")
        if mark and not line.startswith("#") and not value.startswith("="):
            fields.setdefault(key.strip().lower().replace(" ", ""), value.strip())
    return fields, end.end() if end else None


def metaimage_numbers(path: Path) -> list[tuple[str, list[float]]]:
    """What the lines of a MetaImage header that passed `check_place` say of place: (key, numbers)."""
    text = head_of(path).decode("latin-1").partition("ElementDataFile")[0]
    return [(key, [float(number) for number in value.split()]) for key, value in METAIMAGE_FORM.findall(text)]


def check_place(path: Path) -> tuple[str, ...]:
    """Refuses a header that does not say in numbers where its voxels lie; findings of what it may leave out.

    Raises:
        CaseError: directions or spacing are missing, or something else stands in place of a number.
    """
    forms, needed, left_out = _stated(path)
    if needed:
        raise CaseError(f"{path.name}: its header states no {needed}; export it again.")
    for key, value, form in forms:
        if not re.fullmatch(form, value):
            raise CaseError(f"{path.name}: {key} is {value[:60]!r} in its header, which is no number; export it again.")
    return left_out


def _stated(path: Path) -> tuple[list[tuple[str, str, str]], str, tuple[str, ...]]:
    """(key, value, form) of each field that places voxels, what is missing and may not, what is missing and may."""
    if path.suffix.lower() in NRRD:
        fields, _ = nrrd_fields(head_of(path))
        forms = [(key, fields[key], form) for key, form in NRRD_FORMS.items() if key in fields]
        left_out = () if "spaceorigin" in fields else ("no space origin is stated; 0, 0, 0 was taken",)
        return forms, "" if "spacedirections" in fields else "space directions", left_out
    text = head_of(path).decode("latin-1").partition("ElementDataFile")[0]
    forms = [(key, value.strip(), NUMBERS) for key, value in METAIMAGE_FORM.findall(text)]
    has_spacing = {"ElementSpacing", "ElementSize"} & {key for key, _, _ in forms}
    return forms, "" if has_spacing else "ElementSpacing", ()
