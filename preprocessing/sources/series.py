"""DICOM headers sorted into series: which are CT volumes, which belong to one, which are nothing of ours.

A series is what shares SeriesInstanceUID, image size and orientation, so that a scout does not hide in a volume.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.fingerprint import fingerprint
from preprocessing.dicom_header import DicomHeader

NO_PATIENT = re.compile(
    r"^(anon.*|unknown|none|null|na|n/a|patient|subject|test|x+|0+|no_?name|removed|deidentified)?$", re.I
)
PIXELS_OF_IMAGES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "XA", "MG", "OT", "SC", "RF", "XC"}


@dataclass(frozen=True)
class Series:
    """One series: its files in order of path, the folder that holds them, its name within that folder, its patient."""

    headers: tuple[DicomHeader, ...]
    folder: Path
    suffix: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the series."""
        return tuple(header.path for header in self.headers)

    @property
    def modality(self) -> str:
        """Modality as written, '(none)' where it is empty."""
        return self.headers[0].modality or "(none)"

    @property
    def patient(self) -> str:
        """PatientID; '' where it is missing or a placeholder that many patients share."""
        identifier = self.headers[0].patient
        return "" if NO_PATIENT.match(identifier) else identifier

    @property
    def problem(self) -> str:
        """Why the series is no CT volume, as far as headers tell."""
        if self.modality == "CT":
            return ""
        if self.modality in PIXELS_OF_IMAGES:
            return f"Modality {self.modality} is not CT ({len(self.headers)} files); only CT can be ingested."
        return (
            f"{Path(self.paths[0]).name} is a DICOM {self.modality}, not an image, and the series it belongs to is not "
            "in this folder; put it beside its CT."
        )


def group_series(headers: Iterable[DicomHeader]) -> list[Series]:
    """All series of a tree; segmentations and structure sets become notes of the CT they refer to."""
    groups: dict[tuple, list[DicomHeader]] = {}
    for header in headers:
        groups.setdefault(_key(header), []).append(header)
    series = [_series(group) for group in groups.values()]
    images = [one for one in series if one.modality in PIXELS_OF_IMAGES]
    attached: dict[int, list[str]] = {}
    alone: list[Series] = []
    for other in (one for one in series if one.modality not in PIXELS_OF_IMAGES):
        owners = [k for k, image in enumerate(images) if image.modality == "CT" and _refers(other, image)]
        for owner in owners:
            attached.setdefault(owner, []).append(f"DICOM {other.modality} present, not read yet")
        alone += [] if owners else [other]
    noted = [replace(image, notes=tuple(attached.get(k, ()))) for k, image in enumerate(images)]
    return _told_apart([*noted, *alone])


def _key(header: DicomHeader) -> tuple:
    place = header.series or str(Path(header.path).parent)
    return place, header.modality, header.size, tuple(round(v, 2) + 0.0 for v in header.orientation_xyz)


def _series(group: list[DicomHeader]) -> Series:
    ordered = sorted(group, key=lambda header: header.path)
    folder = Path(os.path.commonpath([str(Path(header.path).parent) for header in ordered]))
    return Series(tuple(ordered), folder)


def _refers(other: Series, image: Series) -> bool:
    named = {uid for header in other.headers for uid in header.references}
    first = image.headers[0]
    return bool(named & {first.series, first.frame_of_reference} - {""})


def _told_apart(series: list[Series]) -> list[Series]:
    """Series that share a folder get a suffix: the series number, else a short hash of what makes them differ."""
    out = []
    for one in series:
        crowd = [other for other in series if other.folder == one.folder]
        numbers = [other.headers[0].series_number for other in crowd]
        number = one.headers[0].series_number
        if len(crowd) == 1:
            out.append(one)
        elif number and numbers.count(number) == 1:
            out.append(replace(one, suffix=f"series{number}"))
        else:
            out.append(replace(one, suffix=f"series-{fingerprint([str(v) for v in _key(one.headers[0])])[:8]}"))
    return sorted(out, key=lambda one: (str(one.folder), one.suffix))
