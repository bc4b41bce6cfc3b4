"""WORD: planning CTs of the whole abdomen with 16 organs, in a zip with a password.

The password comes from the environment, MEDDIFF_WORD_PASSWORD. The zip's own parts (Tr, Val, Ts) are no split here: it
is data to pre-train on. Labels of Ts are a second zip, WORD_V0.1.0_labelsTs.zip. Both adrenal glands have one value,
femoral heads are parts of a class and the rectum is none: unknown. The page grants GPL-3.0 and forbids other use
than research: the stricter word counts.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

ORGANS = (
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "stomach",
    "gallbladder",
    "esophagus",
    "pancreas",
    "duodenum",
    "colon",
    "small_bowel",
    "unknown",  # adrenal glands
    "unknown",  # rectum
    "urinary_bladder",
    "unknown",  # head of the left femur
    "unknown",  # head of the right femur
)

WORD = Dataset(
    info=SourceInfo(
        name="word",
        title="WORD, whole abdominal organs",
        regions=("abdomen",),
        licence="research only",
        citation="Luo et al., WORD: a large scale dataset, benchmark and clinical applicable study for abdominal organ "
        "segmentation from CT image, Med Image Anal 2022, 10.1016/j.media.2022.102642",
        access="registration",
        cases=150,
        how=(
            "Ask for the data and the password as https://github.com/HiLab-git/WORD says, set the password in "
            "MEDDIFF_WORD_PASSWORD, and run meddiff ingest word --archive PATH with WORD-V0.1.0.zip (and, for the "
            "labels of its last 30 cases, WORD_V0.1.0_labelsTs.zip of that page)."
        ),
        url="https://github.com/HiLab-git/WORD",
    ),
    layout=FileLayout(
        image=r"/images(?P<part>Tr|Val|Ts)/(?P<case>word_\d+)\.nii\.gz$",
        labels=(LabelRule(path="labels{part}/{case}.nii.gz", classes=dict(enumerate(ORGANS, 1))),),
        labelled=("Tr", "Val"),
    ),
)
