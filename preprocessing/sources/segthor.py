"""SegTHOR: chest CTs with four organs at risk; 40 with labels, 20 without.

Folders `train/Patient_XX/{Patient_XX,GT}.nii.gz` and `test/Patient_XX.nii.gz`. An early release had the heart of a
patient shifted; bring the re-issued one.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

SEGTHOR = Dataset(
    info=SourceInfo(
        name="segthor",
        title="SegTHOR, thoracic organs at risk",
        regions=("chest",),
        licence="research only",
        citation="Lambert et al., SegTHOR: segmentation of thoracic organs at risk in CT images, arXiv 1912.05950",
        access="registration",
        cases=60,
        how=(
            "Join the challenge at https://competitions.codalab.org/competitions/21145, download the archives of its "
            "folders train and test, and run meddiff ingest segthor --archive PATH for each."
        ),
        url="https://competitions.codalab.org/competitions/21145",
    ),
    layout=FileLayout(
        image=r"/(?P<part>train|test)[^/]*/(?:Patient_\d+/)?(?P<case>Patient_\d+)\.nii(?:\.gz)?$",
        labels=(LabelRule(path="{case}/GT.nii.gz", classes={1: "esophagus", 2: "heart", 3: "trachea", 4: "aorta"}),),
        labelled=("train",),
    ),
)
