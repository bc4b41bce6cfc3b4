"""A case: one CT examination as a source lists it, before anything is decoded.

A case is plain data: the files of its image and labels, what their values mean, and where it comes from. Every source
answers in this form, so that one converter reads them all.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from infra.config import Config
from infra.fingerprint import fingerprint

RegionName = Literal["head_neck", "chest", "abdomen"]
AnatomyKind = Literal["full", "partial", "none"]
DeclaredSplit = Literal["", "train", "val", "test"]  # by a data set itself; empty = by the patient's hash
LESION = 255  # in `LabelFile.classes`: this value marks a lesion


class LabelFile(Config):
    """One label file and the meaning of its values.

    `classes` maps a value of the file to a class id of `classes.csv` (value, id); values that it does not name become
    body. A binary mask has one pair, (1, id); any value above 0 then counts as 1 when `binary` is set. The id `LESION`
    puts the value into the lesion mask; beside a second pair (value, organ) the lesion keeps its organ's identity.
    The values of a DICOM SEG are its segment numbers, those of an RTSTRUCT its ROI numbers; there they may overlap.
    """

    path: str
    classes: tuple[tuple[int, int], ...]
    binary: bool = False
    own_grid: bool = Field(False, description="a SEG drawn on another image of the same frame of reference (PET)")


class Stated(Config):
    """What a table of the data set says of an image and its file does not.

    HU = slope x value + intercept, applied once, when the image is decoded; a file of another spacing is refused.
    """

    slope: float = Field(1.0, gt=0)
    intercept: float = 0.0
    spacing_mm: tuple[float, float, float] | None = Field(None, description="z, y, x")


class Case(Config):
    """One CT examination: where its files are and what is known of it.

    `image` is one file, or the files of one DICOM series; where one enhanced DICOM file holds several volumes, `stack`
    says which, as `dicom_stacks.stacks` counts them. Paths are absolute or urls. `version` is a cheap token that
    changes when the files may have changed (size and modification time, ETag, a generator's parameters).
    `companions` are further images on the image's own grid or with their own geometry, e.g. ("noise_free", path),
    ("low_dose", path), a path being one file or the folder of one DICOM series: never trained on, used by evaluation.
    """

    source: str
    id: str
    patient: str
    image: tuple[str, ...]
    stack: int = 0
    stated: Stated | None = None
    labels: tuple[LabelFile, ...] = ()
    anatomy: AnatomyKind = "none"
    lesion: tuple[str, ...] = ()
    companions: tuple[tuple[str, str], ...] = ()
    declared_regions: tuple[RegionName, ...] = ()
    licence: str = "unknown"
    citation: str = ""
    version: str = ""
    notes: tuple[str, ...] = Field((), description="what the listing already found odd; becomes findings")
    split: DeclaredSplit = ""
    problem: str = Field("", description="known already when listed (two images in one case, a label without image)")

    @property
    def token(self) -> str:
        """What its row must say for it to be unchanged: the version, and the problem that its listing found."""
        return fingerprint([self.version, self.problem]) if self.version and self.problem else self.version

    @property
    def origin(self) -> tuple[str, ...]:
        """Every file the case was read from, in a stable order."""
        return (
            *self.image,
            *(label.path for label in self.labels),
            *self.lesion,
            *(path for _, path in self.companions),
        )

    def relocated(self, here: Callable[[str], str]) -> "Case":
        """The case with every file where `here` says that it can be opened."""
        return self.model_copy(
            update={
                "image": tuple(here(path) for path in self.image),
                "labels": tuple(label.model_copy(update={"path": here(label.path)}) for label in self.labels),
                "lesion": tuple(here(path) for path in self.lesion),
                "companions": tuple((name, here(path)) for name, path in self.companions),
            }
        )


def source_folder(source: str) -> str:
    """The name of a source's folders in the lake: a colon, which not every file system takes, is a hyphen there."""
    return source.replace(":", "-")


class CaseError(Exception):
    """A case that must be quarantined; the message names the value that is wrong and the remedy."""


class AbsentError(CaseError):
    """A case whose files could not be had this time (no access, a host that fails): the next ingest tries again."""
