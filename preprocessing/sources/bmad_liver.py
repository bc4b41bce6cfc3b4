"""BMAD's liver benchmark: named here to say why it is not taken.

Its 2-D pictures are crops of BTCV and LiTS slices whose grey values were equalised. Hounsfield units cannot be had back
from them, so that a model of HU is tested on the volumes they were made of, with their lesions.
"""

from collections.abc import Iterable

from infra.errors import UserError
from preprocessing.case import Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout
from preprocessing.sources.files import Files

WHY = (
    "Its PNG slices are cropped and histogram-equalised, so that they hold no Hounsfield units; ingest the volumes "
    "that they were made of instead: btcv (healthy) and msd-liver (LiTS, with tumours)."
)


def refuse(files: Files, layout: FileLayout, source: str) -> Iterable[Case]:
    """Nothing: whoever brings the pictures is told why.

    Raises:
        UserError: always.
    """
    raise UserError(f"source {source} is left out: {WHY}")


BMAD_LIVER = Dataset(
    info=SourceInfo(
        name="bmad-liver",
        title="BMAD, anomalies of the liver",
        regions=("abdomen",),
        licence="research only",
        citation="Bao et al., BMAD: benchmarks for medical anomaly detection, 2023, arXiv 2306.11876",
        access="open",
        how=WHY,
        url="https://github.com/DorisBao/BMAD",
    ),
    layout=FileLayout(image=r"(?P<case>[^/]+)\.png$"),
    list=refuse,
)
