"""CHAOS: 40 CT of healthy livers as DICOM, 20 of them with a PNG of the liver for each slice; MR in the same archives.

A case is a folder of slices, in the order of their positions; its pictures become one label file before it is read
(`decoding.pictures`, which also checks that they lie the right way round). The MR of a patient are refused as one row.
The sets to test on have no labels.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from infra.remote import Remote
from preprocessing.anatomy import class_ids
from preprocessing.case import Case, LabelFile
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, cases_by_layout
from preprocessing.sources.files import Files

ZENODO = "https://zenodo.org/records/3431873/files"
LIVER = ((1, class_ids()["liver"]),)


def cases(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """Every folder of slices as a case, with the pictures beside it as its labels."""
    slices = sorted(cases_by_layout(files, layout, source), key=lambda case: (case.id, case.image))
    for _, group in groupby(slices, key=lambda case: case.id):
        found = list(group)
        case = found[0].replace(image=tuple(path for one in found for path in one.image))
        yield case if case.problem else _labelled(case, files)


def _labelled(case: Case, files: Files) -> Case:
    """The case with its pictures; a note where a set to learn from has none."""
    place = case.image[0].partition("/DICOM_anon/")[0]
    pictures = [path for path in files.below(f"{place}/Ground") if path.lower().endswith(".png")]
    if pictures:
        labels = tuple(LabelFile(path=path, classes=LIVER, binary=True) for path in pictures)
        return case.replace(labels=labels, anatomy="partial")
    return case.replace(notes=("no label file of this image was found",)) if "/Train_Sets/" in place else case


def finish(case: Case, scratch: Path) -> Case:
    """The case with one label file in place of its pictures.

    Raises:
        CaseError: the pictures do not belong to its slices.
    """
    from preprocessing.decoding.pictures import write_mask

    if not case.labels:
        return case
    target = scratch / "liver.mha"
    found = write_mask([label.path for label in case.labels], case.image, target)
    label = LabelFile(path=str(target), classes=LIVER, binary=True)
    return case.replace(labels=(label,), notes=(*case.notes, *found))


CHAOS = Dataset(
    info=SourceInfo(
        name="chaos",
        title="CHAOS, CT of healthy livers",
        regions=("abdomen",),
        licence="CC BY-NC-SA 4.0",
        citation=(
            "Kavur et al., CHAOS challenge: combined (CT-MR) healthy abdominal organ segmentation, Med Image Anal "
            "2021, 10.1016/j.media.2020.101950"
        ),
        size="0.9 GB and the sets to test on",
        cases=40,
        how="Nothing to do: it is pulled from Zenodo.",
        url="https://zenodo.org/records/3431873",
    ),
    layout=FileLayout(
        image=r"/(?P<part>Train|Test)_Sets/(?P<kind>CT|MR)/(?P<number>\d+)/(?:.+/)?DICOM_anon/.+\.dcm$",
        case="{part}-{kind}-{number}",
        patient="{part}-{kind}-{number}",
        refused=((r"_Sets/MR/", "MR, not CT; only CT can be ingested"),),
    ),
    files=(
        Remote(
            url=f"{ZENODO}/CHAOS_Train_Sets.zip",
            md5="df21053002a1cc86df918a87da3b2c19",
            sha256="535f7d3417a0e0f0d9133fb3d962423d2a9cf3f103e4f09a3d8a1daf87d5d2fc",
            size=890_771_694,
        ),
        Remote(
            url=f"{ZENODO}/CHAOS_Test_Sets.zip",
            sha256="80e9e4d4c4e363f142de4570e9b698e3f92dcb5140cc25a9c1cf4963e5ae7541",
        ),
    ),
    list=cases,
    finish=finish,
)
