"""SegRap 2023: two planning CTs a patient (without and with contrast agent), 45 organs at risk and two tumour volumes.

Folders `segrap_XXXX/` with `image.nii.gz`, `image_contrast.nii.gz` and a mask a structure, which hold 0 and 255 and lie
on both images. Both CTs share the patient's key and so its split. Structures overlap: of the 45, five are classes; the
other 40 (parts of the brain among them) are none, and what no class covers is unknown without reading their masks.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

ORGANS = {
    "Brain": "brain",
    "Esophagus": "esophagus",
    "SpinalCord": "spinal_cord",
    "Thyroid": "thyroid_gland",
    "Trachea": "trachea",
}
TUMOURS = {"GTVp": "lesion", "GTVnd": "lesion"}

SEGRAP23 = Dataset(
    info=SourceInfo(
        name="segrap23",
        title="SegRap 2023, organs at risk and tumours of nasopharyngeal carcinoma",
        regions=("head_neck",),
        licence="CC BY-NC 4.0",
        citation="Luo et al., SegRap2023: a benchmark of organs-at-risk and gross tumor volume segmentation for "
        "radiotherapy planning of nasopharyngeal carcinoma, 2023, arXiv 2312.09576",
        access="registration",
        cases=280,
        how=(
            "Join the challenge at https://segrap2023.grand-challenge.org, download "
            "SegRap2023_Training_Set_120cases.zip (and the validation set), and run "
            "meddiff ingest segrap23 --archive PATH for each."
        ),
        url="https://segrap2023.grand-challenge.org",
    ),
    layout=FileLayout(
        image=(
            r"(?:SegRap2023_(?P<part>Training)[^/]*/)?(?P<case>segrap_\d+)/image(?P<phase>_contrast)?\.nii(?:\.gz)?$"
        ),
        case="{case}{phase}",
        patient="{case}",
        labels=tuple(
            LabelRule(path=f"{{case}}/{mask}.nii.gz", classes={1: name}, binary=True)
            for mask, name in (ORGANS | TUMOURS).items()
        ),
        labelled=("Training",),
    ),
)
