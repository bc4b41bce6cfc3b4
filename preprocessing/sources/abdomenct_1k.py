"""AbdomenCT-1K: 1062 abdominal CT in three zips, and a 7z with masks of liver, kidney, spleen and pancreas for 1000.

Put together from public sets without saying which (LiTS and MSD Liver, KiTS19, MSD Spleen, MSD Pancreas, NIH Pancreas),
so that most patients are in other sources as well; the duplicate search finds them. Cases 00297 and 00928 are one
scan and share a patient. 20 cases are copies of 3D-IRCADb whose spacing was overwritten by 1 mm: a note. The kidney
mask has no side, which makes it unknown. Directions that are not orthonormal are set upright by the NIfTI reader.
"""

from collections.abc import Iterator

from infra.remote import Remote
from preprocessing.case import Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule, cases_by_layout
from preprocessing.sources.files import Files

ZENODO = "https://zenodo.org/records"
COPIES = {"Case_00297": "Case_00928", "Case_00928": "Case_00297"}
NO_SPACING = {f"Case_{number:05d}" for number in (78, *range(273, 279), *range(280, 287), 462, *range(574, 579))}
FALSE_SPACING = "its spacing of 1 x 1 x 1 mm is not the scan's: a copy of 3D-IRCADb without its spacing (issue 27)"


def cases(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """Every case of the layout with what is known of it."""
    for case in cases_by_layout(files, layout, source):
        notes = case.notes
        patient = case.patient
        if other := COPIES.get(case.id):
            notes, patient = (*notes, f"the same scan as {other} (issue 28)"), min(case.id, other)
        if case.id in NO_SPACING:
            notes = (*notes, FALSE_SPACING)
        yield case.replace(patient=patient, notes=notes)


ABDOMENCT_1K = Dataset(
    info=SourceInfo(
        name="abdomenct-1k",
        title="AbdomenCT-1K, abdominal CT with four organs",
        regions=("abdomen",),
        licence="research only",
        citation=(
            "Ma et al., AbdomenCT-1K: is abdominal organ segmentation a solved problem?, IEEE TPAMI 2022, "
            "10.1109/TPAMI.2021.3100536"
        ),
        size="100 GB",
        cases=1062,
        how="Nothing to do: it is pulled from Zenodo.",
        url="https://github.com/JunMa11/AbdomenCT-1K",
    ),
    layout=FileLayout(
        image=r"/(?P<case>Case_\d{5})_0000\.nii\.gz$",
        labels=(LabelRule(path="{case}.nii.gz", classes={1: "liver", 2: "unknown", 3: "spleen", 4: "pancreas"}),),
    ),
    files=(
        Remote(
            url=f"{ZENODO}/5903099/files/AbdomenCT-1K-ImagePart1.zip",
            md5="946325d0209179d767bea914c93e9a54",
            sha256="3d0d8edd2a8777f8807c6715f633e2fea104f16a8514572664021ed88f97cd03",
        ),
        Remote(
            url=f"{ZENODO}/5903846/files/AbdomenCT-1K-ImagePart2.zip",
            md5="eb24ba869589d15fe1d89ccf7f13aaa4",
            sha256="3178bd3021dfed0440c4dc269b7f3125b27b60aec96e81b210d7c4c55d0fe894",
        ),
        Remote(
            url=f"{ZENODO}/5903769/files/AbdomenCT-1K-ImagePart3.zip",
            md5="7f5a131e83f3bb38932e8fb62d040a3f",
            sha256="76bf789589a13ca1aef9b9c8b771f05c165e6d2013284bbfdb4c4656d4931c30",
        ),
        Remote(
            url=f"{ZENODO}/5903769/files/Mask.7z",
            md5="dfca75d15912d5d7323585c53e1d75d9",
            sha256="cefa7cab51fb0781876550b032278ca6a1ed2a8c776c8567410ea2b2a6984e50",
        ),
    ),
    list=cases,
)
