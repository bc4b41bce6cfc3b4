"""What `test_planning_scale.py` and `bench ingest` run in processes of their own, on a manifest of made-up rows.

`fill` writes one and `find` finds it unchanged; `simulate` takes the steps of a commit apart.
"""

import json
import random
import sys
import time

import pandas as pd
from process_memory import peak_bytes
from store_samples import RECIPE

from flows.plan import ingest_status
from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.case import Case
from preprocessing.decisions import decided
from preprocessing.ingest import ingest
from preprocessing.manifest import IDENTITY, PLANNED, Kept, ManifestRow, commit, manifest_folder, read_manifest
from preprocessing.manifest_table import COLUMNS, encode, to_frame
from preprocessing.sources.base import SourceInfo

CASES = 100_000
REFUSED_EVERY = 50
SIGNATURE_CHARACTERS = 4056


class Catalogue:
    """A source that lists CT series as a public archive does: one folder each, a version known from the listing."""

    info = SourceInfo(name="catalogue", title="made up", licence="CC-BY-4.0")

    def __init__(self, number=CASES):
        self.number = number

    def cases(self, lake=None, progress=None):
        return [
            Case(
                source="catalogue",
                id=f"collection_{n % 97}/1.3.6.1.4.1.14519.5.2.1.{n:026d}",
                patient=f"patient-{n // 3}",
                image=(f"s3://idc-open-data/{n:036x}",),
                licence="CC-BY-4.0",
                version=f"{n:032x}",
                problem="" if n % REFUSED_EVERY else "it is a localizer",
            )
            for n in range(self.number)
        ]

    def fetch(self, case, lake, scratch):
        raise UserError("nothing changed, so nothing may be fetched")

    def is_listed(self, lake):
        return True

    def finish(self, lake):
        pass


def fill(url: str) -> None:
    """Write the manifest that an ingest of the whole catalogue would commit."""
    lake = open_lake(url)
    digits = random.Random(0)
    texts = ["".join(digits.choices("abcdefgh", k=SIGNATURE_CHARACTERS)) for _ in range(100)]
    cases = sorted(Catalogue().cases(), key=lambda case: case.id)
    like = ManifestRow(source="catalogue", case="", patient="", status="sealed", regions=("chest",), anatomy="full")
    frame = to_frame([like]).loc[[0] * len(cases)].reset_index(drop=True)
    made = {
        "case": [case.id for case in cases],
        "patient": [case.patient for case in cases],
        "status": ["quarantined" if case.problem else "sealed" for case in cases],
        "reason": [case.problem or None for case in cases],
        "key": [f"ct/{RECIPE.fingerprint}/catalogue/{case.id}/{'0' * 16}.zarr" for case in cases],
        "input": ["0" * 16] * len(cases),
        "seal": ["d" * 32] * len(cases),
        "cluster": [f"catalogue/{case.id}" for case in cases],
        "origin": [case.image for case in cases],
        "version": [case.token for case in cases],
        "signature": [texts[n % len(texts)] for n in range(len(cases))],
    }
    rows = frame.assign(**{name: pd.Series(values, dtype=object) for name, values in made.items()})
    lake.create(f"{manifest_folder(RECIPE)}/00000001.parquet", encode(rows[list(COLUMNS)], {}))


def find_unchanged(url: str) -> dict:
    """CPU seconds of planning and of an ingest, what they found, and the most memory that the process ever held."""
    lake = open_lake(url)
    began = time.process_time()
    status = ingest_status(lake, read_manifest(lake, RECIPE, columns=PLANNED), Catalogue())
    planned = time.process_time()
    done = ingest(lake, RECIPE, [Catalogue()])
    return {
        "plan_s": planned - began,
        "ingest_s": time.process_time() - planned,
        "peak_bytes": peak_bytes(),
        "status": status.status,
        "cases": status.cases,
        "manifest": done.manifest.number,
        "counts": done.sources[0].model_dump(mode="json"),
    }


def simulate(url: str, number: str = str(CASES)) -> dict:
    """Wall seconds of what a manifest of so many cases takes, the file's bytes, the most memory held, the splits.

    The rows have no signatures: looking for duplicates has a benchmark of its own.
    """
    lake, source, spent = open_lake(url), Catalogue(int(number)), {}

    def timed(name, work):
        began = time.perf_counter()
        result = work()
        spent[f"{name}_s"] = time.perf_counter() - began
        return result

    rows = [_row(case) for case in source.cases()]
    *most, last = rows
    first = timed("commit", lambda: commit(lake, RECIPE, {"catalogue": most}))
    kept = Kept({row.case: {} for row in most}, first.number)
    timed("commit_one_more", lambda: commit(lake, RECIPE, {"catalogue": [last]}, kept=kept))
    manifest = timed("read", lambda: read_manifest(lake, RECIPE))
    timed("fingerprint", lambda: manifest.fingerprint)
    timed("split", lambda: decided(manifest.rows, set(), frozenset(), RECIPE))
    status = timed(
        "plan", lambda: ingest_status(lake, read_manifest(lake, RECIPE, columns=(*IDENTITY, *PLANNED)), source)
    )
    found = {"rows": len(manifest.rows), "status": status.status, "splits": manifest.rows["split"].value_counts()}
    size = lake.local_path(f"{manifest_folder(RECIPE)}/{manifest.number:08d}.parquet").stat().st_size
    return {**spent, **found, "splits": found["splits"].to_dict(), "file_bytes": size, "peak_bytes": peak_bytes()}


def _row(case: Case) -> ManifestRow:
    """What a commit is given of a case."""
    sealed = {"input": "0" * 16, "seal": "d" * 32, "regions": ("chest",), "anatomy": "full"}
    return ManifestRow(
        source=case.source,
        case=case.id,
        patient=case.patient,
        status="quarantined" if case.problem else "sealed",
        reason=case.problem or None,
        licence=case.licence,
        origin=case.image,
        version=case.token,
        key="" if case.problem else f"ct/{RECIPE.fingerprint}/catalogue/{case.id}/{'0' * 16}.zarr",
        **({} if case.problem else sealed),
    )


if __name__ == "__main__":
    do = {"fill": fill, "find": find_unchanged, "simulate": simulate}[sys.argv[1]]
    print(json.dumps(do(*sys.argv[2:])))
