"""DICOM headers sorted into series: which are CT volumes, which belong to one, which are nothing of ours.

A volume is a stack (`dicom_stacks`) of the slices that share SeriesInstanceUID, so one series may hold several.
Localizers, reformats, screenshots and dose pages are never slices: beside slices they are noted, alone they are a
problem. Segmentations and structure sets become labels of the volume whose images they refer to.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from preprocessing.decoding.dicom_header import DicomHeader
from preprocessing.decoding.dicom_stacks import along_normal, slices_of, stack_key, stacks

NO_PATIENT = re.compile(
    r"^(anon.*|unknown|none|null|na|n/a|patient|subject|test|x+|0+|no_?name|removed|deidentified)?$", re.I
)
PIXELS_OF_IMAGES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "XA", "MG", "OT", "SC", "RF", "XC"}
LABEL_MODALITIES = {"SEG", "RTSTRUCT"}


@dataclass(frozen=True)
class Series:
    """One volume: its slices in order of place, the folder that holds them, its name within that folder, its labels.

    `stack` counts the volumes that lie in the very same files; `unusable` says why there is no slice in it.
    """

    headers: tuple[DicomHeader, ...]
    folder: Path
    suffix: str = ""
    stack: int = 0
    notes: tuple[str, ...] = ()
    unusable: str = ""
    labels: tuple[DicomHeader, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The files of the series, each once."""
        return tuple(dict.fromkeys(header.path for header in self.headers))

    @property
    def modality(self) -> str:
        """Modality as written."""
        return self.headers[0].modality

    @property
    def patient(self) -> str:
        """PatientID; '' where it is missing or a placeholder that many patients share."""
        identifier = self.headers[0].patient
        return "" if NO_PATIENT.match(identifier) else identifier

    @property
    def problem(self) -> str:
        """Why the series is no CT volume, as far as headers tell."""
        if self.modality == "CT":
            return self.unusable
        if self.modality in PIXELS_OF_IMAGES:
            return f"Modality {self.modality} is not CT ({len(self.paths)} files); only CT can be ingested."
        return (
            f"{Path(self.paths[0]).name} is a DICOM {self.headers[0].shown_modality}, not an image, and the series it "
            "belongs to is not in this folder; put it beside its CT."
        )


def group_series(headers: Iterable[DicomHeader]) -> list[Series]:
    """All volumes of a tree with what belongs to them, and what is none with its problem."""
    groups: dict[tuple[str, str], list[DicomHeader]] = {}
    for header in headers:
        groups.setdefault((header.series or str(Path(header.path).parent), header.modality), []).append(header)
    images = [one for (_, kind), group in groups.items() if kind in PIXELS_OF_IMAGES for one in _volumes(group)]
    alone: list[Series] = []
    for group in (group for (_, kind), group in groups.items() if kind not in PIXELS_OF_IMAGES):
        lost = []
        for other in group:
            owners = _owners(other, images)
            lost += [] if owners else [other]
            for k in owners:
                images[k] = _attached(images[k], other)
        alone += [_series(lost)] if lost else []
    return _told_apart([*images, *alone])


def _volumes(group: list[DicomHeader]) -> list[Series]:
    """The volumes of one series; what is no slice is noted with them, or is a problem where there are no slices."""
    slices, left_out = slices_of(group) if group[0].modality == "CT" else (group, Counter())
    kinds = " and ".join(sorted(left_out))
    if not slices:
        reason = (
            f"the {len({h.path for h in group})} files of this series hold only {kinds} images; it is no volume: "
            "ingest the original slices."
        )
        return [replace(_series(group), unusable=reason)]
    notes = tuple(f"{count} {why} images of the series left out" for why, count in sorted(left_out.items()))
    found = stacks(slices)
    return [replace(_series(stack), stack=_count_before(stack, found), notes=notes) for stack in found]


def _count_before(stack: list[DicomHeader], found: list[list[DicomHeader]]) -> int:
    """How many stacks of the very same files come first."""
    files = {header.path for header in stack}
    same = [other for other in found if {header.path for header in other} & files]
    return next(k for k, other in enumerate(same) if other is stack)


def _series(group: list[DicomHeader]) -> Series:
    ordered = along_normal(group)
    folder = Path(os.path.commonpath([str(Path(header.path).parent) for header in ordered]))
    return Series(tuple(ordered), folder)


def _owners(other: DicomHeader, images: list[Series]) -> list[int]:
    """The CT volumes an object refers to: by series and image, by one of them, or the only one in its frame."""
    usable = [k for k, image in enumerate(images) if image.modality == "CT" and not image.problem]
    by_series = [k for k in usable if images[k].headers[0].series in other.references]
    by_image = [k for k in by_series or usable if any(h.instance in other.references for h in images[k].headers)]
    by_frame = [k for k in usable if images[k].headers[0].frame_of_reference in other.references]
    return by_image or by_series or (by_frame if len(by_frame) == 1 else [])


def _attached(image: Series, other: DicomHeader) -> Series:
    if other.modality in LABEL_MODALITIES:
        return replace(image, labels=(*image.labels, other))
    return replace(image, notes=(*image.notes, f"DICOM {other.shown_modality} present, not used"))


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
            out.append(replace(one, suffix=f"series-{stack_key(list(one.headers))}"))
    return sorted(out, key=lambda one: (str(one.folder), one.suffix))
