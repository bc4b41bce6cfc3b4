"""HaN-Seg: CT and MR of 42 heads and necks with a mask for each of 30 organs at risk, all NRRD.

No-derivatives: kept out of a bucket that others may read unless the user says otherwise (`preprocessing.selection`).
The MR lies on another grid and is refused by name. An organ that is not in view has no file. Of the 30 structures three
are classes; the carotid (common and internal in one), the brainstem, the mandible, glands and nerves are none, and so
unknown. Where masks overlap, a class comes before an unknown structure.
"""

from infra.remote import Remote
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule

CLASSES = {"SpinalCord": "spinal_cord", "Esophagus_S": "esophagus", "Glnd_Thyroid": "thyroid_gland"}
PAIRED = ("A_Carotid_", "Cochlea_", "Eye_A", "Eye_P", "Glnd_Lacrimal_", "Glnd_Submand_", "OpticNrv_", "Parotid_")
SINGLE = (
    *("Arytenoid", "Bone_Mandible", "Brainstem", "BuccalMucosa", "Cavity_Oral", "Cricopharyngeus", "Glottis"),
    *("Larynx_SG", "Lips", "OpticChiasm", "Pituitary"),
)
UNKNOWN = (*SINGLE, *(f"{organ}{side}" for organ in PAIRED for side in "LR"))

HAN_SEG = Dataset(
    info=SourceInfo(
        name="han-seg",
        title="HaN-Seg, CT of head and neck with 30 organs at risk",
        regions=("head_neck",),
        licence="CC BY-NC-ND 4.0",
        citation=(
            "Podobnik et al., HaN-Seg: the head and neck organ-at-risk CT & MR segmentation dataset, Med Phys 2023, "
            "10.1002/mp.16197"
        ),
        cases=42,
        how="Nothing to do: it is pulled from Zenodo; changed copies must not be published, so use a local lake.",
        url="https://zenodo.org/records/7442914",
    ),
    layout=FileLayout(
        image=r"/(?P<case>case_\d{2})_IMG(?:_CT|(?P<mr>_MR_T1))\.nrrd$",
        case="{case}{mr}",
        labels=tuple(
            LabelRule(path=f"{{case}}_OAR_{organ}.seg.nrrd", classes={1: name}, binary=True)
            for organ, name in {**CLASSES, **dict.fromkeys(UNKNOWN, "unknown")}.items()
        ),
        regions=("head_neck",),
        refused=((r"_IMG_MR_T1\.nrrd$", "an MR beside its CT; only CT can be ingested"),),
    ),
    files=(
        Remote(
            url="https://zenodo.org/records/7442914/files/HaN-Seg.zip",
            sha256="20226dd717f334dc1b1afe961b3375f946fa56b64a80bf5349128f90c0bbfa5f",
        ),
    ),
)
