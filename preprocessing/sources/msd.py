"""The CT tasks of the Medical Segmentation Decathlon: one tar a task, masks of an organ and its tumours.

The tars hold AppleDouble twins (`._x`), which every archive reader here skips. imagesTs have no labels. Lung and Liver
are test sets of the lesion tasks, so their patients never train.
"""

from infra.remote import Remote
from preprocessing.case import DeclaredSplit, RegionName
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

BUCKET = "https://msd-for-monai.s3-us-west-2.amazonaws.com"


def task(
    number: int,
    organ: str,
    md5: str,
    classes: dict[int, str],
    region: RegionName,
    cases: int,
    size: str = "",
    split: DeclaredSplit = "",
) -> Dataset:
    """One task of the Decathlon."""
    stem = organ.lower()
    return Dataset(
        info=SourceInfo(
            name=f"msd-{'hepatic-vessel' if organ == 'HepaticVessel' else stem}",
            title=f"Medical Segmentation Decathlon, Task{number:02d} {organ}",
            regions=(region,),
            licence="CC BY-SA 4.0",
            citation="Antonelli et al., Medical Segmentation Decathlon, Nat Commun 2022, 10.1038/s41467-022-30695-9",
            access="open",
            size=size,
            cases=cases,
            how="Nothing to do: it is pulled from the bucket msd-for-monai.",
            url="http://medicaldecathlon.com",
        ),
        layout=FileLayout(
            image=rf"images(?P<part>Tr|Ts)/(?P<case>{stem}_\d+)\.nii\.gz$",
            labels=(LabelRule(path="labels{part}/{case}.nii.gz", classes=classes),),
            labelled=("Tr",),
            splits={"Tr": split, "Ts": split} if split else {},
        ),
        files=(Remote(url=f"{BUCKET}/Task{number:02d}_{organ}.tar", md5=md5),),
    )


LIVER = task(
    3, "Liver", "a90ec6c4aa7f6a3d087205e23d4e6397", {1: "liver", 2: "lesion+liver"}, "abdomen", 201, "27 GB", "test"
)
LUNG = task(6, "Lung", "8afd997733c7fc0432f71255ba4e52dc", {1: "lesion"}, "chest", 95, "8.5 GB", "test")
PANCREAS = task(
    7, "Pancreas", "4f7080cfca169fa8066d17ce6eb061e4", {1: "pancreas", 2: "lesion+pancreas"}, "abdomen", 420
)
HEPATIC_VESSEL = task(
    8, "HepaticVessel", "641d79e80ec66453921d997fbf12a29c", {1: "unknown", 2: "lesion"}, "abdomen", 443
)
SPLEEN = task(9, "Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", {1: "spleen"}, "abdomen", 61, "1.6 GB")
COLON = task(10, "Colon", "bad7a188931dc2f6acf72b08eb6202d0", {1: "lesion"}, "abdomen", 190)
