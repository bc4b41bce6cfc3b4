r"""CT-RATE: chest CTs with reports, on the Hugging Face hub behind a token.

`dataset/{train,valid}_fixed/train_1/train_1_a/train_1_a_1.nii.gz` is patient 1, scan a, reconstruction 1; of a patient
the first scan's first reconstruction is taken, so that `--limit 1000` is 1000 patients. The second release (`_fixed`)
holds HU. The first one (`train`, `valid`; brought, not pulled) holds stored values and no spacing of its own: slope,
intercept and spacing stand in `dataset/metadata/*_metadata.csv` and are handed to the decoder, once. Masks of all 117
organs lie at `dataset/ts_seg/ts_total/` for the second release. The folders train and valid are no split here.
"""

import ast
import csv
import io
import re
from collections.abc import Iterator
from functools import cache

from infra.hub import hub_files
from infra.remote import Remote
from preprocessing.anatomy import BODY, class_names
from preprocessing.case import Case, CaseError, LabelFile, Stated
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.dataset import Dataset, PublicSource
from preprocessing.sources.file_layout import FileLayout, LabelRule
from preprocessing.sources.files import FileEntry, Files

REPOSITORY = "ibrahimhamamci/CT-RATE"
PAGE = f"https://huggingface.co/datasets/{REPOSITORY}"
ACCESS = f"accept the terms at {PAGE} and make a read token in your settings there"
FOLDERS = ("dataset/train_fixed", "dataset/valid_fixed", "dataset/ts_seg/ts_total")
VOLUME = r"(?P<volume>(?P<patient>(?:train|valid)_\d+)_(?P<scan>[a-z]+)_(?P<reconstruction>\d+))\.nii\.gz(?:#.*)?$"
MASK = re.compile(r"/ts_total/(?:train|valid)_fixed/(?:[^/]+/)*" + VOLUME)
TABLE = re.compile(r"/(?:train|valid|validation)_metadata\.csv$")


def find(source: PublicSource) -> Iterator[tuple[str, FileEntry]]:
    """The second release and its masks, as the hub lists them now."""
    for file in hub_files(REPOSITORY, FOLDERS, token_env="HF_TOKEN", access=ACCESS):
        yield f"{file.url}#sha256={file.sha256}" if file.sha256 else file.url, FileEntry(file.size, file.token)


def patients(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """One case a patient."""
    masks = {match["volume"]: match.string for match in files.matching(MASK)}
    first: dict[str, re.Match[str]] = {}
    for match in files.matching(re.compile(layout.image)):
        known = first.get(match["patient"])
        if known is None or _place(match) < _place(known):
            first[match["patient"]] = match

    @cache
    def table() -> dict[str, Stated]:
        names = [match.string for match in files.matching(TABLE)]
        return {volume: stated for name in names for volume, stated in _stated(files.read(name), name)}

    for patient, match in first.items():
        volume, fixed = match["volume"], bool(match["fixed"])
        mask = masks.get(volume) if fixed else None
        stated = None if fixed else table().get(volume)
        yield Case(
            source=source,
            id=volume,
            patient=patient,
            image=(match.string,),
            labels=(LabelFile(path=mask, classes=layout.labels[0].pairs),) if mask else (),
            anatomy="full" if mask else "none",
            declared_regions=layout.regions,
            stated=stated,
            problem="" if fixed or stated else _without_row(volume),
        )


def _place(match: re.Match[str]) -> tuple[bool, int, str, int]:
    """The second release before the first, then scan a, b, … z, aa, then reconstructions by number."""
    return not match["fixed"], len(match["scan"]), match["scan"], int(match["reconstruction"])


def _stated(data: bytes, name: str) -> Iterator[tuple[str, Stated]]:
    """Each volume of a metadata table with what it says.

    Raises:
        CaseError: it is another table.
    """
    try:
        for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"))):
            across, down = ast.literal_eval(row["XYSpacing"])
            yield (
                row["VolumeName"].removesuffix(".nii.gz"),
                Stated(
                    slope=float(row["RescaleSlope"]),
                    intercept=float(row["RescaleIntercept"]),
                    spacing_mm=(float(row["ZSpacing"]), float(down), float(across)),
                ),
            )
    except (KeyError, ValueError, SyntaxError, TypeError) as error:
        raise CaseError(f"{name} is no metadata table of CT-RATE ({error!r}); download it again.") from error


def _without_row(volume: str) -> str:
    return (
        f"{volume} holds stored values, and no metadata table beside it says their slope and intercept; bring "
        "dataset/metadata/train_metadata.csv and validation_metadata.csv too, or the second release (train_fixed)"
    )


CT_RATE = Dataset(
    info=SourceInfo(
        name="ct-rate",
        title="CT-RATE, chest CTs with reports",
        regions=("chest",),
        licence="CC BY-NC-SA 4.0",
        citation="Hamamci et al., Developing generalist foundation models from a multimodal dataset for 3D computed "
        "tomography, 2024, arXiv 2403.17834",
        access="token",
        cases=21304,
        how=(
            f"Accept the terms at {PAGE}, set HF_TOKEN to a read token, pip install 'meddiff[huggingface]', and run "
            "meddiff ingest ct-rate --limit 1000; a copy that you have is read by --archive PATH."
        ),
        url=PAGE,
    ),
    layout=FileLayout(
        image=r"(?<!/ts_total)/(?:train|valid)(?P<fixed>_fixed)?/(?:[^/]+/)*" + VOLUME,
        labels=(LabelRule(path="ts_total", classes={id_: class_names()[id_] for id_ in range(1, BODY)}),),
    ),
    find=find,
    list=patients,
    remote=Remote(url=PAGE, token_env="HF_TOKEN", access=ACCESS),
)
