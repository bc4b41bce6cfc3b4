r"""StructSeg 2019: planning CTs of head and neck and of the chest, each site with an organ task and a tumour task.

Folders `HaN_OAR/<n>/{data,label}.nii.gz`, the same for Naso_GTV, Thoracic_OAR and Lung_GTV. The tumour tasks show the
scans of the organ tasks again: a scan that was brought twice (files of one size) is one case with both label files, and
what was brought of a tumour task alone keeps the patient key of the organ task's number. Parts of a class (temporal
lobes of the brain) and whole lungs are no class: unknown.
"""

from collections.abc import Iterator
from itertools import chain

from preprocessing.case import Case
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset
from preprocessing.sources.file_layout import FileLayout, LabelRule, cases_by_layout
from preprocessing.sources.files import Files

SITES = {"HaN": "head", "Naso": "head", "Thoracic": "chest", "Lung": "chest"}
HEAD_ORGANS = dict.fromkeys(range(1, 23), "unknown") | {20: "spinal_cord"}
CHEST_ORGANS = {1: "unknown", 2: "unknown", 3: "heart", 4: "esophagus", 5: "trachea", 6: "spinal_cord"}


def scans(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """One case a scan, whichever of its two tasks it was brought with."""
    tasks: dict[str, list[Case]] = {}
    for case in cases_by_layout(files, layout, source):
        task, number = case.id.split("-")
        tasks.setdefault(task, []).append(case.replace(patient=f"{SITES[task]}-{number}"))
    for organs, tumour in (("HaN", "Naso"), ("Thoracic", "Lung")):
        yield from _site(files, tasks.get(organs, []), tasks.get(tumour, []))


def _site(files: Files, organs: list[Case], tumours: list[Case]) -> Iterator[Case]:
    found = {case.id: case for case in organs}
    alone = []
    for tumour in tumours:
        same = [case for case in organs if _size(files, case) == _size(files, tumour)]
        twin = next((case for case in same if case.patient == tumour.patient), same[0] if same else None)
        if twin is None:
            alone.append(tumour)
        else:
            known = found[twin.id]
            found[twin.id] = known.replace(labels=(*known.labels, *tumour.labels), notes=())
    yield from chain(found.values(), alone)


def _size(files: Files, case: Case) -> int:
    return files.entries[case.image[0]].size


STRUCTSEG = Dataset(
    info=SourceInfo(
        name="structseg",
        title="StructSeg 2019, organs at risk and tumours of head and neck and chest",
        regions=("head_neck", "chest"),
        licence="research only",
        citation="StructSeg 2019 challenge, https://structseg2019.grand-challenge.org",
        access="registration",
        cases=100,
        how=(
            "Join the challenge at https://structseg2019.grand-challenge.org, download Task1_HaN_OAR.zip and "
            "Task3_Thoracic_OAR.zip (with tumours also Task2_Naso_GTV.zip and Task4_Lung_GTV.zip), and run "
            "meddiff ingest structseg --archive PATH for each."
        ),
        url="https://structseg2019.grand-challenge.org",
    ),
    layout=FileLayout(
        image=(
            r"/(?:(?P<head>HaN)_OAR|(?P<nose>Naso)_GTV|(?P<chest>Thoracic)_OAR|(?P<lung>Lung)_GTV)"
            r"/(?:[^/]+/)??(?P<number>\d+)/data\.nii(?:\.gz)?$"
        ),
        case="{head}{nose}{chest}{lung}-{number}",
        patient="{number}",
        labels=(
            LabelRule(path="{head}_OAR/{number}/label.nii.gz", classes=HEAD_ORGANS),
            LabelRule(path="{nose}_GTV/{number}/label.nii.gz", classes={1: "lesion"}),
            LabelRule(path="{chest}_OAR/{number}/label.nii.gz", classes=CHEST_ORGANS),
            LabelRule(path="{lung}_GTV/{number}/label.nii.gz", classes={1: "lesion"}),
        ),
    ),
    list=scans,
)
