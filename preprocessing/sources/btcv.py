"""BTCV, abdomen of "Beyond the cranial vault": portal venous CTs with 13 organs; ids 61 to 80 have no labels.

Only `RawData.zip` is taken: the eight-organ copies that go round are clipped and resampled.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

ORGANS = (
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "pancreas",
    "adrenal_gland_right",
    "adrenal_gland_left",
)

BTCV = Dataset(
    info=SourceInfo(
        name="btcv",
        title="BTCV abdomen, Beyond the Cranial Vault",
        regions=("abdomen",),
        licence="research only",
        citation="Landman et al., Multi-atlas labeling beyond the cranial vault, 2015, 10.7303/syn3193805",
        access="registration",
        cases=50,
        how=(
            "Join the challenge at https://www.synapse.org/Synapse:syn3193805 (its files stay hidden before), download "
            "RawData.zip of the abdomen, and run meddiff ingest btcv --archive PATH."
        ),
        url="https://www.synapse.org/Synapse:syn3193805",
    ),
    layout=FileLayout(
        image=r"/(?P<part>Training|Testing)/img/img(?P<number>\d{4})\.nii(?:\.gz)?$",
        case="img{number}",
        patient="img{number}",
        labels=(LabelRule(path="{part}/label/label{number}.nii.gz", classes=dict(enumerate(ORGANS, 1))),),
        labelled=("Training",),
    ),
)
