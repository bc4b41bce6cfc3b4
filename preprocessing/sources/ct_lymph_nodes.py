"""CT Lymph Nodes of the Imaging Data Commons: MED-LN (mediastinum, 90 patients) and ABD-LN (abdomen, 86 patients).

One CT and one SEG a patient, by the beginning of PatientID. Every segment is a lymph node, whatever its label. The SEG
is taken and not the NIfTI masks of the same set, whose axes run otherwise than the images'. SeriesNumber is empty. Test
sets of the lesion tasks: their patients never train.
"""

from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dicom_labels import always_lesion
from preprocessing.sources.idc_cases import IdcSet, LabelSeries


def part(name: str, title: str, region: str, patients: str, cases: int) -> IdcSet:
    """The patients of one region."""
    return IdcSet(
        info=SourceInfo.model_validate(
            {
                "name": name,
                "title": f"CT Lymph Nodes, {title}",
                "regions": (region,),
                "licence": "CC BY 3.0",
                "citation": "Roth et al., CT Lymph Nodes, Cancer Imaging Archive 2015, 10.7937/K9/TCIA.2015.AQIIDCNM",
                "size": "58 GB with its other half",
                "cases": cases,
                "how": "Nothing to do: it is pulled from the public buckets of the Imaging Data Commons.",
                "url": "https://portal.imaging.datacommons.cancer.gov/collections/ct_lymph_nodes",
            }
        ),
        collection="ct_lymph_nodes",
        patients=patients,
        labels=LabelSeries(meaning=always_lesion),
        split="test",
    )


MEDIASTINUM = part("med-ln", "mediastinum", "chest", "^MED_LYMPH", 90)
ABDOMEN = part("abd-ln", "abdomen", "abdomen", "^ABD_LYMPH", 86)
