"""FDG-PET-CT-Lesions (AutoPET) of the Imaging Data Commons: 1,014 CT of 900 patients, lesions that take up FDG.

The CT series is the case, not the PET, nor a CT resampled to it. The one SEG of a study is drawn on the PET: its frames
lie on that grid and its header may name the PET alone, so it belongs to the CT by the frame of reference they share,
and each CT voxel takes the nearest PET voxel's value. Patients with several studies share their key.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dicom_labels import always_lesion
from preprocessing.sources.idc_cases import IdcSet, LabelSeries

FDG_PET_CT_LESIONS = IdcSet(
    info=SourceInfo(
        name="fdg-pet-ct-lesions",
        title="FDG-PET-CT-Lesions (AutoPET), CT with the lesions that take up FDG",
        regions=("head_neck", "chest", "abdomen"),
        licence="CC BY 4.0",
        citation="Gatidis, Kuestner, FDG-PET-CT-Lesions, The Cancer Imaging Archive 2022, 10.7937/gkr0-xv29",
        size="296 GB",
        cases=1014,
        how="Nothing to do: it is pulled from the public buckets of the Imaging Data Commons.",
        url="https://portal.imaging.datacommons.cancer.gov/collections/fdg_pet_ct_lesions",
    ),
    collection="fdg_pet_ct_lesions",
    labels=LabelSeries(meaning=always_lesion, own_grid=True),
)
