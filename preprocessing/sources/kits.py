"""KiTS23 (with KiTS19 in it): 489 CT of kidney tumours, images and labels each behind a url of their own.

Images lie in the challenge's repository at Hugging Face, labels in its git repository; both are pinned to a revision,
which makes their names part of the data's version. A copy made by `kits23_download_data` is brought as a folder, and a
`mirror` holds `images/` and `dataset/` as the two repositories do. Arrays are stored z first, which their affine says.
Kidneys and cysts have no side, which makes them unknown; tumours are lesions. In four cases of KiTS19 slices of another
phase follow the labelled ones: a note. Case 160 is 796 pixels wide.
"""

from collections.abc import Iterator

from preprocessing.case import Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset, PublicSource
from preprocessing.sources.file_layout import FileLayout, LabelRule, cases_by_layout
from preprocessing.sources.files import FileEntry, Files

REPOSITORY = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging"
IMAGES = f"{REPOSITORY}/resolve/65f1f295873a326230153c7e1de0c7dba10f0b29"
LABELS = "https://raw.githubusercontent.com/neheller/kits23/e282208"
NUMBERS = (*range(300), *range(400, 589))
REPEATED = {f"case_{number:05d}" for number in (15, 25, 61, 117)}
UNLABELLED_END = "slices of another phase follow the labelled ones, with kidneys that are not labelled (KiTS19 issue 6)"


def find(source: PublicSource) -> Iterator[tuple[str, FileEntry]]:
    """Image and label of every case; their urls name a revision, so that nothing has to be asked to list them."""
    images, labels = (source.mirror.rstrip("/"),) * 2 if source.mirror else (IMAGES, LABELS)
    for number in NUMBERS:
        yield f"{images}/images/case_{number:05d}.nii.gz", FileEntry(0, images)
        yield f"{labels}/dataset/case_{number:05d}/segmentation.nii.gz", FileEntry(0, labels)


def cases(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """Every case of the layout; those with unlabelled slices have a note."""
    for case in cases_by_layout(files, layout, source):
        yield case.replace(notes=(*case.notes, UNLABELLED_END)) if case.id in REPEATED else case


KITS = Dataset(
    info=SourceInfo(
        name="kits",
        title="KiTS23, CT of kidney tumours",
        regions=("abdomen",),
        licence="CC BY-NC-SA 4.0",
        citation="Heller et al., The KiTS21 challenge, 2023, 10.48550/arXiv.2307.01984",
        size="27 GB",
        cases=489,
        how="Nothing to do: each case is pulled from Hugging Face and GitHub.",
        url="https://github.com/neheller/kits23",
    ),
    layout=FileLayout(
        image=r"/(?:case|master)_(?P<number>\d{5})(?:/imaging)?\.nii\.gz$",
        case="case_{number}",
        patient="case_{number}",
        labels=(
            LabelRule(path="case_{number}/segmentation.nii.gz", classes={1: "unknown", 2: "lesion", 3: "unknown"}),
        ),
    ),
    find=find,
    list=cases,
)
