"""What `test_planning_scale.py` runs in processes of their own: fill a lake's manifest, then find it unchanged."""

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
from preprocessing.ingest import ingest
from preprocessing.manifest import PLANNED, ManifestRow, manifest_folder, read_manifest
from preprocessing.manifest_table import COLUMNS, encode, to_frame
from preprocessing.sources.base import SourceInfo

CASES = 100_000
REFUSED_EVERY = 50
SIGNATURE_CHARACTERS = 4056


class Catalogue:
    """A source that lists CT series as a public archive does: one folder each, a version known from the listing."""

    info = SourceInfo(name="catalogue", title="made up", licence="CC-BY-4.0")

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
            for n in range(CASES)
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


if __name__ == "__main__":
    do = {"fill": fill, "find": find_unchanged}[sys.argv[1]]
    print(json.dumps(do(sys.argv[2])))
