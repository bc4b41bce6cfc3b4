"""C4KC-KiTS of the Imaging Data Commons: 411 CT of 210 patients in up to three phases, one of them labelled.

The SEG of a study is drawn on its arterial phase; the other phases have no labels. `kidney` names no side, so it is
unknown; cysts and tumours are the lesion.
"""

from collections.abc import Sequence

from preprocessing.anatomy import UNKNOWN
from preprocessing.case import LESION
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.idc_cases import IdcSet, LabelSeries


def _kidney_or_lesion(names: Sequence[str]) -> list[int]:
    words = " ".join(names[:2]).lower()
    if any(word in words for word in ("tumor", "tumour", "neoplasm", "mass", "cyst", "lesion")):
        return [LESION, UNKNOWN]
    return [UNKNOWN] if "kidney" in words else []


C4KC_KITS = IdcSet(
    info=SourceInfo(
        name="c4kc-kits",
        title="C4KC-KiTS, kidney tumours in several phases",
        regions=("abdomen",),
        licence="CC BY 3.0",
        citation="Heller et al., C4KC KiTS, The Cancer Imaging Archive 2019, 10.7937/TCIA.2019.IX49E8NX",
        size="42 GB",
        cases=411,
        how="Nothing to do: it is pulled from the public buckets of the Imaging Data Commons.",
        url="https://portal.imaging.datacommons.cancer.gov/collections/c4kc_kits",
    ),
    collection="c4kc_kits",
    labels=LabelSeries(images="^arterial", meaning=_kidney_or_lesion),
)
