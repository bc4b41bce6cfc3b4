"""From rows of the index to cases: which CT series are volumes, which labels and companions may belong to each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from preprocessing.case import Case, DeclaredSplit, LabelFile, RegionName
from preprocessing.licences import terms
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dicom_labels import Meaning, by_names

REVISION = 1  # raised whenever the same rows would be listed or read otherwise
CT_IMAGES = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"}
CLASSIC = "1.2.840.10008.5.1.4.1.1.2"
OTHERS = {"1.2.840.10008.5.1.4.1.1.66": "raw data (projections)", "1.2.840.10008.5.1.4.1.1.7": "secondary captures"}
FEWEST_SLICES = 4  # of 203,111 CT series of NLST, 69,593 have 1 to 3 images: localizers
LOCALIZER = re.compile(r"\b(scouts?|locali[sz]ers?|topograms?|surview|scanogram)\b", re.IGNORECASE)
SAFE = re.compile(r"[A-Za-z0-9._-]+")
SERIES_OF = re.compile(r"of Series (\d+)$")


@dataclass(frozen=True)
class LabelSeries:
    """Which SEG and RTSTRUCT series of a CT's study are pulled with it, and what their parts mean.

    Args:
        analysis: of which analysis results; "" is what the collection itself brought.
        images: pattern of the SeriesDescription of those CT that have labels.
        numbered: the label's description ends in `of Series <SeriesNumber of the CT>`.
        meaning: names of a part to class ids.
        own_grid: drawn on another image of the same frame of reference.
        at_most: series a CT; a study with more gives none, and a note.
    """

    analysis: tuple[str, ...] = ("",)
    images: str = ""
    numbered: bool = False
    meaning: Meaning = by_names
    own_grid: bool = False
    at_most: int = 16


@dataclass(frozen=True)
class IdcSet:
    """The facts of one data set that is, or is part of, a collection.

    Args:
        info: its entry in the catalogue.
        collection: collection_id.
        patients: pattern of PatientID.
        images: pattern of the SeriesDescription of a case; other CT series are no cases of the set.
        labels: which segmentations go with a CT.
        companions: (name, SeriesDescription) of CT series of the same study that are stored beside the case.
        regions: (pattern of PatientID, region) where a patient's images show that region alone.
        split: the part of the data that the whole set is.
        revision: raised whenever the same rows would be listed or read otherwise.
    """

    info: SourceInfo
    collection: str
    patients: str = ""
    images: str = ""
    labels: LabelSeries = field(default_factory=LabelSeries)
    companions: tuple[tuple[str, str], ...] = ()
    regions: tuple[tuple[str, RegionName], ...] = ()
    split: DeclaredSplit = ""
    revision: int = 1


class Row(NamedTuple):
    """One series of the index."""

    patient: str
    study: str
    series: str
    description: str
    images: int
    revised: int
    address: str
    modality: str
    sop_class: str
    analysis: str
    doi: str
    licence: str
    bucket: str
    number: str

    @property
    def url(self) -> str:
        """Where its objects lie; the slash at the end says: everything below."""
        return f"s3://{self.bucket}/{self.address}/"


def listed_cases(facts: IdcSet, columns: dict[str, list]) -> list[Case]:
    """One case a CT series of the set, in the order of the rows."""
    labels: dict[tuple[str, str], list[Row]] = {}
    others: dict[tuple[str, str], Row] = {}
    companions = {description for _, description in facts.companions}
    patients, images = re.compile(facts.patients), re.compile(facts.images)
    scans = []
    for row in _rows(columns):
        if not patients.search(row.patient):
            continue
        if row.modality != "CT":
            labels.setdefault((row.study, _numbered(row) if facts.labels.numbered else ""), []).append(row)
        elif row.description in companions:
            others[row.study, row.description] = row
        elif images.search(row.description):
            scans.append(row)
    labelled = re.compile(facts.labels.images, re.IGNORECASE)
    cases = []
    for row in scans:
        found = labels.get((row.study, row.number if facts.labels.numbered else ""), [])
        cases.append(_case(facts, row, found if labelled.search(row.description) else [], others))
    return cases


def _rows(columns: dict[str, list]) -> Iterator[Row]:
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "instanceCount")
    names += ("series_revised_idc_version", "crdc_series_uuid", "Modality", "SOPClassUID", "analysis_result_id")
    names += ("source_DOI", "license_short_name", "aws_bucket", "SeriesNumber")
    return map(Row._make, zip(*(columns[name] for name in names), strict=True))


def _case(facts: IdcSet, row: Row, candidates: list[Row], others: dict[tuple[str, str], Row]) -> Case:
    problem = _problem(row)
    found = [] if problem or len(candidates) > facts.labels.at_most else candidates
    notes = () if found or problem or not candidates else (_too_many(candidates, facts.labels.at_most),)
    beside = [(name, others.get((row.study, description))) for name, description in facts.companions]
    companions = [] if problem else [(name, other) for name, other in beside if other]
    used = [row, *found, *(other for _, other in companions)]
    return Case.model_construct(
        source=facts.info.name,
        id=f"{_safe(row.patient)}-{sha256(row.series.encode()).hexdigest()[:8]}",
        patient=row.patient,
        image=(row.url,),
        stack=0,
        labels=tuple(LabelFile(path=label.url, classes=()) for label in found),
        anatomy="none",
        lesion=(),
        companions=tuple((name, other.url) for name, other in companions),
        declared_regions=tuple(region for pattern, region in facts.regions if re.search(pattern, row.patient)),
        licence=_strictest(used),
        citation="; ".join(dict.fromkeys(f"https://doi.org/{one.doi}" for one in used if one.doi)),
        version=_version(facts, row, used[1:]),
        notes=notes,
        split=facts.split,
        problem=problem,
    )


def _problem(row: Row) -> str:
    """Why a series cannot be a volume, as far as its row in the index tells."""
    if row.sop_class not in CT_IMAGES:
        return f"its {row.images} objects are {OTHERS.get(row.sop_class, row.sop_class)}, not CT images"
    if row.sop_class == CLASSIC and row.images < FEWEST_SLICES:
        return f"a series of {row.images} image{'s' * (row.images > 1)} is a localizer or a fragment, not a volume"
    if LOCALIZER.search(row.description):
        return f"its description says that it is a localizer ({row.description[:40]}), not a volume"
    return ""


def _too_many(candidates: list[Row], at_most: int) -> str:
    return f"{len(candidates)} segmentations of the study, more than {at_most}: none used"


def _numbered(label: Row) -> str:
    match = SERIES_OF.search(label.description)
    return match[1] if match else ""


def _version(facts: IdcSet, row: Row, others: list[Row]) -> str:
    beside = sha256(" ".join(one.address for one in others).encode()).hexdigest()[:8] if others else "alone"
    return f"{row.address}.v{row.revised}.{beside}.r{REVISION}-{facts.revision}"


def _strictest(rows: list[Row]) -> str:
    """The licence that allows least among all that a case is made of."""
    names = {row.licence for row in rows}
    return min(sorted(names), key=lambda name: sum(terms(name))) if len(names) > 1 else rows[0].licence


def _safe(patient: str) -> str:
    return patient if SAFE.fullmatch(patient) else re.sub(r"[^A-Za-z0-9._-]+", "-", patient).strip("-") or "patient"
