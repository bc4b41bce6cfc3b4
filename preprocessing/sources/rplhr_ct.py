"""RPLHR-CT: chest CTs reconstructed twice, in 1 mm and in 5 mm slices, for super-resolution along z.

Zips `{train,val,test}.zip` with `<part>/{1mm,5mm}/<case>.nii.gz`. The thin slices are the image, the thick ones its
companion `thick`, whose slice k is centred where thin slice 5k lies. The data set's own split is kept. Where a release
holds fractions instead of HU its cases are refused with the values seen: what they were divided by is not written down.
The record's terms were not at hand: taken for research only, which a line in sources.toml changes.
"""

from infra.remote import Remote
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout

RECORD = "https://zenodo.org/records/17239183"

RPLHR_CT = Dataset(
    info=SourceInfo(
        name="rplhr-ct",
        title="RPLHR-CT, thick and thin slices of one scan",
        regions=("chest",),
        licence="research only",
        citation="Yu et al., RPLHR-CT dataset and transformer baseline for volumetric super-resolution from CT scans, "
        "MICCAI 2022, 10.1007/978-3-031-16446-0_33",
        access="open",
        cases=250,
        how="Nothing to do: it is pulled from Zenodo.",
        url=RECORD,
    ),
    layout=FileLayout(
        image=r"(?P<part>train|val|test)/1mm/(?P<case>[^/]+)\.nii\.gz$",
        case="{part}-{case}",
        patient="{part}-{case}",
        companions=(("thick", "{part}/5mm/{case}.nii.gz"),),
        splits={"train": "train", "val": "val", "test": "test"},
    ),
    files=tuple(Remote(url=f"{RECORD}/files/{part}.zip") for part in ("train", "val", "test")),
)
