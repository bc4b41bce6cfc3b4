"""LDCT-and-Projection-data of the Imaging Data Commons (the Mayo data): full-dose CT, half of them with low dose.

50 chest (C) and 50 abdomen (L) patients have both doses, a further 49 and 50 the full dose alone; heads (N) are not
here. A full-dose series is a case, the low-dose series of its study the companion `low_dose` on the same grid (noise
was added as of a tenth of the dose in the chest, a quarter in the abdomen). Projections have Modality CT as well, 825
of the 863 GB; they are raw data by their SOP class, not images, and no cases. Test set of the denoising task.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.idc_cases import IdcSet, LabelSeries

LDCT_AND_PROJECTION_DATA = IdcSet(
    info=SourceInfo(
        name="ldct-and-projection-data",
        title="LDCT-and-Projection-data (Mayo), full dose with low dose beside",
        regions=("chest", "abdomen"),
        licence="CC BY 4.0",
        citation="McCollough et al., LDCT-and-Projection-data, The Cancer Imaging Archive 2020, 10.7937/9NPB-2637",
        size="38 GB of images",
        cases=199,
        how="Nothing to do: it is pulled from the public buckets of the Imaging Data Commons.",
        url="https://portal.imaging.datacommons.cancer.gov/collections/ldct_and_projection_data",
    ),
    collection="ldct_and_projection_data",
    images="^Full Dose Images$",
    labels=LabelSeries(analysis=()),
    companions=(("low_dose", "Low Dose Images"),),
    regions=(("^C", "chest"), ("^L", "abdomen")),
    split="test",
)
