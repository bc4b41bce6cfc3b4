"""Any directory tree of NIfTI, DICOM, NRRD and MetaImage files as a source, read in place.

Every image file and every DICOM series is one case, unless a convention makes it a label (`naming`, `pairing`) whose
values something beside it explains (`meaning`):

`<case>/ct.nii.gz` + `<case>/segmentations/<class>.nii.gz`  masks named after classes: full anatomy if all 117 are there
`<case>/anatomy.nii.gz`                                     TotalSegmentator ids: full anatomy (and preferred to masks)
`imagesTr/x_0000` + `labelsTr/x`, `dataset.json`            label names of the JSON that match a class or a tumour
`sub-…_ct` + `sub-…_seg-vert_…_msk`                         vertebrae in the VerSe numbering
`x_lesion`, `lesion`, `x_tumour`, `x_gtv`, `CT_mask`        a lesion: everything above 0
`liver_seg`, `x_liver_mask`                                 a mask of the class it names
DICOM SEG, RTSTRUCT                                         segments and contours of the series they refer to, by name
any other `x_seg`, `x_label`, `x_mask`                      a finding, not used: nothing declares its values

Nothing is lost silently: a label without image, an MR series or a broken DICOM file is a case with its problem.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from infra.config import Config
from infra.errors import UserError
from infra.fetch import Progress
from infra.fingerprint import fingerprint
from infra.lake import Lake
from preprocessing.case import Case, RegionName
from preprocessing.decoding.data_files import with_data_files
from preprocessing.decoding.dicom_header import DicomHeader
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.folder.meaning import meanings, read_dataset_json
from preprocessing.sources.folder.naming import case_name, core, patient_name, safe, stem
from preprocessing.sources.folder.pairing import Pairs, pair
from preprocessing.sources.folder.tree import scan
from preprocessing.sources.series import Series, group_series

INFO = SourceInfo(
    name="folder",
    title="A directory of your own CTs",
    access="local",
    how="give the directory: `meddiff ingest folder --path DIR`; NIfTI, DICOM, NRRD and MHA/MHD are read in place",
)
IMAGES_SPLIT = re.compile(r"^images(Tr|Ts|Val)$", re.IGNORECASE)
OTHER_MODALITY = re.compile(r"MR|T1|T2|FLAIR|PET|ultrasound", re.IGNORECASE)
FURTHER_CHANNEL = re.compile(r"_(000[1-9]|00[1-9]\d)$")


class FolderSource(Config):
    """A directory of CTs. Patients are told apart by PatientID, else by folder and file name (`naming`)."""

    path: str = Field(min_length=1, description="the directory")
    name: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9_-]*)?$", description="the source's name in the lake; empty = folder"
    )
    identified: bool = Field(False, description="hide names: ids, patients and paths become keyed hashes")
    declared_region: RegionName | None = Field(None, description="the region of every CT in it, if you know it")
    licence: str = "unknown"

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry."""
        return INFO.replace(name=self.name or INFO.name)

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """Every image and series, sorted by id.

        Raises:
            UserError: no such directory, or nothing in it that could be a CT.
        """
        root = Path(os.path.normpath(Path(self.path).expanduser().absolute()))
        if not root.is_dir():
            raise UserError(f"{root} is {'a file' if root.exists() else 'not there'}; --path takes a directory of CTs.")
        tree = scan(root)
        series = group_series(tree.dicom)
        pairs = pair(tree.images, [one.folder for one in series if not one.problem])
        cases = [self._series_case(one, pairs, root) for one in series]
        cases += [self._image_case(image, pairs, root) for image in pairs.images]
        cases += [self._problem(path, reason, root) for path, reason in pairs.lost]
        cases += [self._problem(p, f"{p.name} is named DICOM but is none; copy it again.", root) for p in tree.broken]
        if not cases:
            raise UserError(f"{root} holds no CT: no NIfTI, DICOM, NRRD or MHA/MHD file was found in it.")
        return _unique(cases)

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case itself: its files are read where they are."""
        return case

    def is_listed(self, lake: Lake | None) -> bool:
        """Always."""
        return True

    def finish(self, lake: Lake) -> None:
        """Nothing was pulled."""

    def _case(self, **fields: Any) -> Case:
        regions = (self.declared_region,) if self.declared_region else ()
        case = Case(source=self.info.name, declared_regions=regions, licence=self.licence, **fields)
        return case.replace(version=_version(with_data_files(case.origin)))

    def _series_case(self, series: Series, pairs: Pairs, root: Path) -> Case:
        place = series.folder.relative_to(root).as_posix()
        id_ = safe("__".join(part for part in (root.name if place == "." else place, series.suffix) if part))
        alone = series.problem or series.suffix
        labels = [] if alone else pairs.labels.get(series.folder, [])
        return self._case(
            id=id_,
            patient=series.patient or patient_name(id_),
            image=series.paths,
            stack=series.stack,
            problem=series.problem,
            **_labelled(labels, (), series.notes, series.labels),
        )

    def _image_case(self, image: Path, pairs: Pairs, root: Path) -> Case:
        id_ = case_name(image.relative_to(root).as_posix(), root.name)
        return self._case(
            id=id_,
            patient=patient_name(id_),
            image=(str(image),),
            problem=_wrong_channel(image),
            **_labelled(pairs.labels.get(image, []), core(image.name), ()),
        )

    def _problem(self, path: Path, reason: str, root: Path) -> Case:
        id_ = safe(stem(path.relative_to(root).as_posix()))
        return self._case(id=id_, patient=patient_name(id_), image=(str(path),), problem=reason)


def _labelled(
    labels: list[Path], image_core: tuple[str, ...], notes: tuple[str, ...], dicom: Sequence[DicomHeader] = ()
) -> dict[str, object]:
    """The fields of a case that its label files decide."""
    found = meanings(labels, image_core, dicom)
    return {
        "labels": tuple(found.labels),
        "lesion": tuple(found.lesion),
        "anatomy": found.anatomy,
        "notes": (*notes, *found.notes),
    }


def _wrong_channel(image: Path) -> str:
    """Why an image of a Decathlon or nnU-Net folder is no CT of its own; empty where it is one."""
    if not IMAGES_SPLIT.match(image.parent.name):
        return ""
    _, modality = read_dataset_json(image.parent.parent / "dataset.json")
    if OTHER_MODALITY.search(modality):
        return f"dataset.json says that the modality is {modality!r}, not CT; only CT can be ingested."
    channel = FURTHER_CHANNEL.search(stem(image.name))
    return f"{image.name} is channel {int(channel[1])} of another image; only channel 0 is read." if channel else ""


def _version(paths: tuple[str, ...]) -> str:
    """A token that changes when a file's size or modification time does."""
    stats = [Path(path).stat() if Path(path).exists() else None for path in paths]
    return fingerprint([[s.st_size, s.st_mtime_ns] if s else None for s in stats])


def _unique(cases: list[Case]) -> list[Case]:
    """The cases sorted by id; where ids agree, file names tell them apart, then a hash of the path."""
    for more in (lambda case: safe(Path(case.image[0]).name), lambda case: fingerprint(case.image[0])[:8]):
        count = Counter(case.id.casefold() for case in cases)
        cases = [c if count[c.id.casefold()] == 1 else c.replace(id=f"{c.id}__{more(c)}") for c in cases]
    return sorted(cases, key=lambda case: case.id)
