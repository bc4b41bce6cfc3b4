"""LIDC-IDRI of the Imaging Data Commons: 1,018 chest CT of 1,010 patients, nodules drawn by up to four readers each.

Eight patients have two scans, which share their key. Each drawing of a nodule is a SEG of its own (analysis result
`dicom_lidc_idri_nodules`, up to 49 a scan); the lesion is what any reader drew. The 53 CR and 237 DX series are no CT
and are not listed; segmentations of the analysis result `qin_lungct_seg`, repeated runs of algorithms on ten patients,
are left aside.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dicom_labels import always_lesion
from preprocessing.sources.idc_cases import IdcSet, LabelSeries

LIDC_IDRI = IdcSet(
    info=SourceInfo(
        name="lidc-idri",
        title="LIDC-IDRI, nodules in chest CT",
        regions=("chest",),
        licence="CC BY 3.0",
        citation="Armato et al., LIDC-IDRI, The Cancer Imaging Archive 2015, 10.7937/K9/TCIA.2015.LO9QL9SX; nodules as "
        "DICOM: Fedorov et al. 2018, 10.7937/TCIA.2018.h7umfurq",
        size="128 GB",
        cases=1018,
        how="Nothing to do: it is pulled from the public buckets of the Imaging Data Commons.",
        url="https://portal.imaging.datacommons.cancer.gov/collections/lidc_idri",
    ),
    collection="lidc_idri",
    labels=LabelSeries(analysis=("dicom_lidc_idri_nodules",), meaning=always_lesion, at_most=64),
    regions=(("", "chest"),),
)
