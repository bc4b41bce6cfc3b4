"""INSTANCE 2022: non-contrast head CTs with intracranial haemorrhage; 100 with labels, 30 without.

Folders `train_2/data/NNN.nii.gz` and `train_2/label/NNN.nii.gz`; the validation images lie in a folder of their own.
Slices are some 5 mm apart, so that most of what is stored at 1 mm is interpolated along z.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

INSTANCE22 = Dataset(
    info=SourceInfo(
        name="instance22",
        title="INSTANCE 2022, intracranial haemorrhage on head CT",
        regions=("head_neck",),
        licence="CC BY-NC-ND",
        citation="Li et al., The state-of-the-art 3D anisotropic intracranial hemorrhage segmentation on non-contrast "
        "head CT: the INSTANCE challenge, 2023, 10.48550/arXiv.2301.03281",
        access="registration",
        cases=130,
        how=(
            "Join the challenge at https://instance.grand-challenge.org, download train_2.zip and the validation "
            "images, and run meddiff ingest instance22 --archive PATH for each."
        ),
        url="https://instance.grand-challenge.org",
    ),
    layout=FileLayout(
        image=r"/(?:(?P<part>train)[^/]*/data|(?!label)[^/]+)/(?P<case>\d{3})\.nii(?:\.gz)?$",
        labels=(LabelRule(path="label/{case}.nii.gz", classes={1: "lesion"}),),
        regions=("head_neck",),
        labelled=("train",),
    ),
)
