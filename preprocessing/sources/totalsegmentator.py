"""TotalSegmentator's CT data set, release 2.0.1, and its subset of 102 cases: one mask a class, most of them empty.

`meta.csv` is separated by semicolons, begins with a byte order mark and names each case's split, which is kept. Cases
whose labels or images its users found wrong are ingested with a note. Release 2.0.0 had images of wrong contrast: they
get a note where the files do not say that they are 2.0.1. Faces were blurred before publication, which every case
notes. The CTs are a random sample of a clinic: many show a small field of view, and none declares a region.
"""

import csv
from collections.abc import Iterator

from infra.remote import Remote
from preprocessing.case import Case, DeclaredSplit
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, cases_by_layout, masks
from preprocessing.sources.files import Files

SPLITS: dict[str, DeclaredSplit] = {"train": "train", "val": "val", "test": "test"}
BLURRED = "the data set's authors blurred faces: do not judge images of the face by it"
VERTEBRAE = "vertebrae are mixed up in its labels (TotalSegmentator issue 394)"
HEART = "the heart is labelled below the diaphragm (TotalSegmentator issue 299)"
ROTATED = "the volume was rotated: its corners are empty (TotalSegmentator issue 34)"
KNOWN = {
    "s0001": (ROTATED,),
    "s0044": (ROTATED,),
    "s0067": (ROTATED,),
    "s0071": (VERTEBRAE,),
    "s0092": ("lung_upper_lobe_right is labelled beyond the scan (TotalSegmentator issue 245)",),
    "s0128": (VERTEBRAE,),
    "s0143": (HEART,),
    "s0201": (HEART,),
    "s0350": (VERTEBRAE,),
    "s0513": ("humerus_right is labelled wrongly (TotalSegmentator issue 245)", VERTEBRAE),
    "s0603": (VERTEBRAE,),
    "s0605": ("lung_lower_lobe_left is labelled below the diaphragm (TotalSegmentator issue 245)",),
    "s0676": (VERTEBRAE,),
    "s0941": (VERTEBRAE,),
    "s1196": (HEART,),
}
FALSE_CONTRAST = ("s0184", "s0224", "s0830", "s0864", "s0992")
OLDER = (
    "its image has wrong HU in release 2.0.0, and its files do not say that they are 2.0.1 (TotalSegmentator issue 193)"
)


def cases(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """Every case of the layout with its split from `meta.csv` and what is known to be wrong with it."""
    splits = declared_splits(files)
    for case in cases_by_layout(files, layout, source):
        older = (OLDER,) if case.id in FALSE_CONTRAST and "v201" not in case.image[0] else ()
        notes = (*case.notes, BLURRED, *KNOWN.get(case.id, ()), *older)
        yield case.replace(split=SPLITS.get(splits.get(case.id, ""), case.split), notes=notes)


def declared_splits(files: Files) -> dict[str, str]:
    """The column `split` of `meta.csv` by case; nothing where a user's release has no such table."""
    table = files.ending("meta.csv")
    if table is None:
        return {}
    rows = csv.DictReader(files.read(table).decode("utf-8-sig").splitlines(), delimiter=";")
    return {row["image_id"]: row.get("split") or "" for row in rows if row.get("image_id")}


def release(name: str, title: str, url: str, md5: str, count: int, size: str) -> Dataset:
    """The whole data set or its subset."""
    return Dataset(
        info=SourceInfo(
            name=name,
            title=title,
            regions=("head_neck", "chest", "abdomen"),
            licence="CC BY 4.0",
            citation=(
                "Wasserthal et al., TotalSegmentator: robust segmentation of 104 anatomic structures in CT images, "
                "Radiol Artif Intell 2023, 10.1148/ryai.230024"
            ),
            size=size,
            cases=count,
            how="Nothing to do: it is pulled from Zenodo.",
            url=url.rpartition("/files/")[0],
        ),
        layout=FileLayout(image=r"(?P<case>s\d{4})/ct\.nii\.gz$", labels=masks("{case}/segmentations/{name}.nii.gz")),
        files=(Remote(url=url, md5=md5),),
        list=cases,
    )


WHOLE = release(
    "totalsegmentator",
    "TotalSegmentator CT 2.0.1",
    "https://zenodo.org/records/10047292/files/Totalsegmentator_dataset_v201.zip",
    "fe250e5718e0a3b5df4c4ea9d58a62fe",
    1228,
    "23.6 GB",
)
SMALL = release(
    "totalsegmentator-small",
    "TotalSegmentator CT 2.0.1, its subset of 102 cases",
    "https://zenodo.org/records/10047263/files/Totalsegmentator_dataset_small_v201.zip",
    "6b5524af4b15e6ba06ef2d700c0c73e0",
    102,
    "3.2 GB",
)
