"""FLARE22: 50 abdominal CT with 13 organs on Zenodo, and 2050 more without labels for those who join the challenge.

The public zip is pulled. What the challenge gives out beside it (`Case_…` to learn from, `FLARETs_…` to tune on) is
read as well where it is brought. Most scans are those of MSD, TCIA and AbdomenCT-1K; the duplicate search finds them.
"""

from infra.remote import Remote
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

ORGANS = {
    1: "liver",
    2: "kidney_right",
    3: "spleen",
    4: "pancreas",
    5: "aorta",
    6: "inferior_vena_cava",
    7: "adrenal_gland_right",
    8: "adrenal_gland_left",
    9: "gallbladder",
    10: "esophagus",
    11: "stomach",
    12: "duodenum",
    13: "kidney_left",
}

FLARE22 = Dataset(
    info=SourceInfo(
        name="flare22",
        title="FLARE22, abdominal CT with 13 organs",
        regions=("abdomen",),
        licence="research only",
        citation=(
            "Ma et al., Unleashing the strengths of unlabelled data in deep learning-assisted pan-cancer abdominal "
            "organ quantification: the FLARE22 challenge, Lancet Digit Health 2024, 10.1016/S2589-7500(24)00154-7"
        ),
        size="about 1.5 GB",
        cases=50,
        how="Nothing to do for the labelled 50; those of https://flare22.grand-challenge.org are brought by --archive.",
        url="https://zenodo.org/records/7860267",
    ),
    layout=FileLayout(
        image=r"/(?P<case>(?P<part>FLARE22_Tr|FLARETs|Case)_\d+)_0000\.nii\.gz$",
        labels=(LabelRule(path="labels/{case}.nii.gz", classes=ORGANS),),
        labelled=("FLARE22_Tr",),
    ),
    files=(Remote(url="https://zenodo.org/records/7860267/files/FLARE22Train.zip"),),
)
