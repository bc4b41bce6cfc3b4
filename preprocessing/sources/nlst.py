"""NLST of the Imaging Data Commons: 203,111 CT series of 26,254 patients, 11 TB; take a part of it with --limit.

69,593 series hold one to three images: localizers, listed with that problem. Labels are the analysis result
`totalsegmentator_ct_segmentations`: one SEG of up to 104 organs for most of the other series, told by the number of the
series at the end of its description. It was made by TotalSegmentator 1.5.6, whose classes are fewer than ours, so the
anatomy is partial: its chambers of the heart are one heart here, its pulmonary artery and face are unknown.
"""

import re
from collections.abc import Sequence
from functools import cache

from preprocessing.anatomy import BODY, UNKNOWN, class_ids
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.idc_cases import IdcSet, LabelSeries

PLAIN = re.compile(r"\b(of|the|structure|entire|bone|muscle|common|gland|and)\b")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
SAME = {
    **{name: str(number) for number, name in enumerate((*ORDINALS, "eleventh", "twelfth"), 1)},
    "oesophagus": "esophagus",
    "clavicle": "clavicula",
    "vena": "vein",
    "vertebrae": "vertebra",
    "intestine": "bowel",
    "splenic": "vein",
    "portal": "vein",
}
HEART = {"heart", "myocardium", "atrium", "ventricle", "atrial", "ventricular"}
UNNAMED = [{"pulmonary", "artery"}, {"face"}]
CODED = {"autochthon_left": "left deep back", "autochthon_right": "right deep back"}


def organ(names: Sequence[str]) -> list[int]:
    """The class that a segment's label means, else its coded type, else its region; in any order of words."""
    for name in names:
        if (id_ := _class_of(_words(name))) is not None:
            return [id_]
    return []


def _class_of(words: frozenset[str]) -> int | None:
    if any(words >= unnamed for unnamed in UNNAMED):
        return UNKNOWN
    return class_ids()["heart"] if words & HEART else _by_words().get(words)


@cache
def _by_words() -> dict[frozenset[str], int]:
    organs = {name: id_ for name, id_ in class_ids().items() if id_ < BODY}
    coded = {_words(words): organs[name] for name, words in CODED.items()}
    return coded | {_words(name): id_ for name, id_ in organs.items()}


def _words(name: str) -> frozenset[str]:
    plain = PLAIN.sub(" ", re.sub(r"[^a-z0-9]+", " ", name.lower()))
    return frozenset(SAME.get(word, word) for word in plain.split())


NLST = IdcSet(
    info=SourceInfo(
        name="nlst",
        title="National Lung Screening Trial, low-dose chest CT with TotalSegmentator's organs",
        regions=("chest",),
        licence="CC BY 4.0",
        citation="National Lung Screening Trial Research Team, NLST, The Cancer Imaging Archive 2013, "
        "10.7937/TCIA.HMQ8-J677; organs: Thiriveedhi et al. 2023, 10.5281/zenodo.8347011",
        size="11 TB",
        cases=203111,
        how="Nothing to do: it is pulled from the public buckets of the Imaging Data Commons; say --limit N.",
        url="https://portal.imaging.datacommons.cancer.gov/collections/nlst",
    ),
    collection="nlst",
    labels=LabelSeries(analysis=("totalsegmentator_ct_segmentations",), numbered=True, meaning=organ),
    regions=(("", "chest"),),
)
