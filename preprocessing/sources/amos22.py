"""AMOS22: 500 CT and 100 MR of the abdomen with 15 organs, and some 1900 CT without labels in four zips of their own.

Cases 501 to 600 are MR and refused by name. Test images have no labels. Label 15 is the prostate or the uterus, which
is no class. In the zips without labels 5437 and 5514 are damaged. The zip's `__MACOSX` is skipped as in every archive.
"""

from infra.remote import Remote
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

CITATION = (
    "Ji et al., AMOS: a large-scale abdominal multi-organ benchmark for versatile medical image segmentation, "
    "NeurIPS 2022, 10.48550/arXiv.2206.08023"
)
ORGANS = {
    1: "spleen",
    2: "kidney_right",
    3: "kidney_left",
    4: "gallbladder",
    5: "esophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior_vena_cava",
    10: "pancreas",
    11: "adrenal_gland_right",
    12: "adrenal_gland_left",
    13: "duodenum",
    14: "urinary_bladder",
    15: "unknown",
}

LABELLED = Dataset(
    info=SourceInfo(
        name="amos22",
        title="AMOS22, abdominal CT with 15 organs",
        regions=("abdomen",),
        licence="CC BY 4.0",
        citation=CITATION,
        size="23 GB",
        cases=500,
        how="Nothing to do: it is pulled from Zenodo.",
        url="https://zenodo.org/records/7155725",
    ),
    layout=FileLayout(
        image=r"images(?P<part>Tr|Va|Ts)/(?P<case>amos_\d{4})\.nii\.gz$",
        labels=(LabelRule(path="labels{part}/{case}.nii.gz", classes=ORGANS),),
        labelled=("Tr", "Va"),
        refused=(
            (
                r"amos_0(50[1-9]|5[1-9]\d|600)\.nii\.gz$",
                "AMOS22 numbers 501 to 600 are MR, not CT; only CT can be ingested",
            ),
        ),
    ),
    files=(
        Remote(
            url="https://zenodo.org/records/7155725/files/amos22.zip",
            sha256="d2fbf2c31abba9824d183f05741ce187b17905b8cca64d1078eabf1ba96775c2",
        ),
    ),
)

UNLABELLED = Dataset(
    info=SourceInfo(
        name="amos22-unlabelled",
        title="AMOS22, abdominal CT without labels",
        regions=("abdomen",),
        licence="CC BY 4.0",
        citation=CITATION,
        cases=1900,
        how=(
            "Fetch amos22_unlabeled_ct_5000_5399.zip, ..._5400_5899.zip, ..._5900_6199.zip and ..._6200_6899.zip"
            " from https://amos22.grand-challenge.org/Dataset/ and give each by "
            "`meddiff ingest amos22-unlabelled --archive PATH`."
        ),
        url="https://amos22.grand-challenge.org/Dataset/",
    ),
    layout=FileLayout(
        image=r"/(?P<case>amos_[56]\d{3})\.nii\.gz$",
        refused=((r"amos_(5437|5514)\.nii\.gz$", "this image is damaged in the published zip; leave it out"),),
    ),
)
