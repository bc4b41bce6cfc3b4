"""The Imaging Data Commons as a source: `idc:<collection>` for any collection, one case a CT series.

Series are listed from the index on disk (`idc_index`), their files pulled from public buckets when a case is converted.
A series that its owner revises gets another address, which is its version here. What cannot be a volume by its index
row (localizers, raw projections, screenshots) is a case with that problem. A SEG or RTSTRUCT of the same study is
pulled as well, and is a label where its header refers to the CT.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from infra.config import Config
from infra.errors import UserError
from infra.fetch import Progress
from infra.lake import Lake, open_lake
from infra.remote import Remote, TransferError
from infra.transfer import below, pull_many, raw_key
from preprocessing.case import AbsentError, Case, CaseError, LabelFile, source_folder
from preprocessing.decoding.dicom_header import DicomHeader, is_dicom, read_headers
from preprocessing.sources import idc_index
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dicom_labels import dicom_label
from preprocessing.sources.file_layout import anatomy_kind
from preprocessing.sources.idc_cases import IdcSet, listed_cases

ENDPOINT = "https://s3.amazonaws.com"
PREFIX = "idc:"
WHOLE = "objects.json"  # beside a series of which every file is there
INFO = SourceInfo(
    name="idc",
    title="Imaging Data Commons, any collection with CT by its name",
    licence="by series",
    citation="Fedorov et al., National Cancer Institute Imaging Data Commons, RadioGraphics 2023, 10.1148/rg.230180",
    size="18.1 TB of CT in release 25",
    how="Name a collection, as in `meddiff ingest idc:pancreas_ct --limit 2`; a wrong name is answered with near ones.",
    url="https://portal.imaging.datacommons.cancer.gov",
)


class IdcSource(Config):
    """The CT series of one collection; `name` is that of a set declared in a file of its own, or `idc:<collection>`."""

    name: str = ""
    collection: str = Field("", description="collection_id of the Imaging Data Commons, e.g. lidc_idri")
    mirror: str = Field(ENDPOINT, description="an S3 endpoint that has the public buckets")
    index: str = Field("", description="another index file (Parquet) than that of the installed idc-index-data")
    analysis: str = Field("", description="an analysis result whose SEG or RTSTRUCT are labels as well")
    keep_raw: bool = Field(True, description="keep what was pulled; false = each case's files only while it is read")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name"):
            if not values.get("collection"):
                raise ValueError("name a collection, as in idc:lidc_idri")
            return values | {"name": f"{PREFIX}{values['collection']}"}
        return values

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            idc_index.refuse_unknown(self.facts.collection, self.index)
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def facts(self) -> IdcSet:
        """What is taken of the collection, and what its labels mean."""
        if not self.name.startswith(PREFIX):
            from preprocessing.sources.registry import idc_set

            return idc_set(self.name)
        collection = self.name.removeprefix(PREFIX)
        info = INFO.replace(
            name=self.name, title=f"Imaging Data Commons, collection {collection}", licence="", size="",
            url=f"{INFO.url}/collections/{collection}",
        )  # fmt: skip
        return IdcSet(info, collection)

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry; without a licence where each series has its own."""
        info = self.facts.info
        if not self.name.startswith(PREFIX):
            return info
        size = idc_index.megabytes(self.facts.collection, self.index)
        counted = idc_index.collections(self.index).get(self.facts.collection)
        return info.replace(cases=counted, size=f"{size:.0f} MB" if size else "")

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """Every CT series, sorted by patient and series; nothing is pulled.

        Raises:
            UserError: the index cannot be read, or holds no such series.
        """
        facts = self.facts
        wanted = (*facts.labels.analysis, self.analysis) if self.analysis else facts.labels.analysis
        cases = listed_cases(facts, idc_index.series(facts.collection, wanted, self.index))
        if not cases:
            raise UserError(
                f"source {self.name}: the index has no CT series of its kind; give an index of idc-index-data >= 25"
            )
        return cases

    def is_listed(self, lake: Lake | None) -> bool:
        """True: the index is on this machine."""
        return True

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with the files of its series, and those labels that refer to it.

        Raises:
            AbsentError: a series cannot be had now.
            CaseError: its first file is damaged.
        """
        place = lake if self.keep_raw else open_lake(str(scratch / "pulled"))
        try:
            folders = {url: self._series(url, lake, place, scratch) for url in case.origin}
        except TransferError as error:
            raise AbsentError(str(error)) from error
        image = _files(folders[case.image[0]])
        notes = list(case.notes)
        candidates = [file for label in case.labels for file in _files(folders[label.path])]
        labels = self._labels(image[0], candidates, notes)
        return case.model_copy(
            update={
                "image": tuple(map(str, image)),
                "labels": labels,
                "anatomy": anatomy_kind(labels),
                "companions": tuple((name, str(folders[url])) for name, url in case.companions),
                "notes": tuple(notes),
            }
        )

    def finish(self, lake: Lake) -> None:
        """Nothing is left to drop: without `keep_raw` files never came to the lake."""

    def _labels(self, image: Path, candidates: list[Path], notes: list[str]) -> tuple[LabelFile, ...]:
        rule = self.facts.labels
        headers = read_headers(image)
        if not headers:
            raise CaseError(f"{image.name} is not a readable DICOM file; delete it from raw/ and ingest again.")
        found = [header for file in candidates for header in read_headers(file)[:1]]
        own = [header for header in found if _refers(header, headers[0], by_frame=rule.own_grid)]
        if len(own) < len(candidates):
            notes.append(f"{len(candidates) - len(own)} segmentations of the study refer to another image, not used")
        labels = [dicom_label(header, notes, rule.meaning) for header in own]
        return tuple(label.replace(own_grid=rule.own_grid) for label in labels if label is not None)

    def _series(self, url: str, lake: Lake, place: Lake, scratch: Path) -> Path:
        """The folder on this machine with every file of a series, pulled first where the lake has not all of them."""
        folder = raw_key(source_folder(self.name), url.rstrip("/").rpartition("/")[2], WHOLE).rpartition("/")[0]
        place = lake if lake.exists(f"{folder}/{WHOLE}") else place
        if not place.exists(f"{folder}/{WHOLE}"):
            self._pull(url, folder, place)
        if (local := place.local_path(folder)) is not None:
            return local
        copy = scratch / Path(folder).name
        copy.mkdir(parents=True, exist_ok=True)
        for name in json.loads(place.read(f"{folder}/{WHOLE}")):
            with place.open(f"{folder}/{name}") as stream, (copy / name).open("wb") as out:
                shutil.copyfileobj(stream, out, 8 * 2**20)
        return copy

    def _pull(self, url: str, folder: str, place: Lake) -> None:
        objects = below(Remote(url=url, endpoint=self.mirror, anonymous=True))
        names = {remote.url.rpartition("/")[2]: remote for remote in objects}
        for _, result in pull_many(place, ((remote, f"{folder}/{name}") for name, remote in names.items())):
            if isinstance(result, UserError):
                raise result
        place.write(f"{folder}/{WHOLE}", json.dumps(sorted(names)).encode())


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]


def _refers(label: DicomHeader, image: DicomHeader, *, by_frame: bool) -> bool:
    """Whether a label names the series of the image, or by its rule no more than the space that it lies in."""
    return image.series in label.references or (by_frame and image.frame_of_reference in label.references)
