r"""The AAPM Low Dose CT Grand Challenge of 2016: ten patients at full dose and with the noise of a quarter of it.

Folders of DICOM files (`.IMA`), patient in dose (`full_3mm/L067/`) or dose in patient (`L067/full_3mm/`), loose or in
zips (`3mm B30/FD_3mm.zip`). Slices of 1 mm and 3 mm, of the kernels B30 and D45 (`sharp`), are cases of their own under
one patient. The image is the full dose, its companion `low_dose` the folder of the quarter dose. All are test data.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from preprocessing.case import Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout
from preprocessing.sources.files import Files

PATIENT = re.compile(r"(?<![A-Za-z])L\d{3}(?=/|_|$)")
SHARP = re.compile(r"D45|sharp", re.IGNORECASE)


class _Scan(NamedTuple):
    patient: str
    slices: str
    kernel: str

    @property
    def id(self) -> str:
        return "_".join(part for part in self if part)


def pairs(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """One case a full-dose series with the quarter-dose series of its patient, slices and kernel."""
    doses: dict[str, dict[_Scan, str]] = {"full": {}, "quarter": {}}
    for match in files.matching(re.compile(layout.image)):
        folder = match.string.rpartition("/")[0]
        if patients := PATIENT.findall(folder):
            scan = _Scan(patients[-1], match["slices"], "D45" if SHARP.search(folder) else "")
            doses[match["dose"]].setdefault(scan, folder)
    for scan, folder in doses["full"].items():
        low = doses["quarter"].get(scan)
        yield Case(
            source=source,
            id=scan.id,
            patient=scan.patient,
            image=tuple(files.below(folder)),
            companions=(("low_dose", low),) if low else (),
            declared_regions=layout.regions,
            split="test",
            notes=() if low else ("no quarter-dose series of this scan was found",),
        )


MAYO_2016 = Dataset(
    info=SourceInfo(
        name="mayo-2016",
        title="AAPM Low Dose CT Grand Challenge 2016",
        regions=("abdomen",),
        licence="research only",
        citation="McCollough et al., Low-dose CT for the detection and classification of metastatic liver lesions: "
        "results of the 2016 Low Dose CT Grand Challenge, Med Phys 2017, 10.1002/mp.12345",
        access="registration",
        cases=40,
        how=(
            "Ask at https://www.aapm.org/grandchallenge/lowdosect/ for the training images, and run meddiff ingest "
            "mayo-2016 --archive PATH for the folder Training_Image_Data (its zips FD_1mm.zip, QD_1mm.zip, FD_3mm.zip "
            "and QD_3mm.zip may stay packed); the open LDCT-and-Projection-data shares one patient with it, L143."
        ),
        url="https://www.aapm.org/grandchallenge/lowdosect/",
    ),
    layout=FileLayout(image=r"/(?P<dose>full|quarter)_(?P<slices>\d+mm)[^/]*/(?:[^/]+/)*[^/]+\.(?:IMA|ima|dcm)$"),
    list=pairs,
)
