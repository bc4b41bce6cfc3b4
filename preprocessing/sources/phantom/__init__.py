"""The phantom as a source: lists made-up patients from a seed, and makes one's files when asked.

Listing draws parameters only. Fetching generates the files under `raw/phantom/<version>/<case>/` of the lake, where
they stay; a complete case is never written again, and the same seed gives the same bytes.
"""

import hashlib
import json
import shutil
import uuid
from pathlib import Path

from pydantic import Field

from infra.config import Config
from infra.fetch import Progress
from infra.fingerprint import canonical_json, fingerprint
from infra.lake import Lake
from preprocessing.case import Case, CaseError, LabelFile
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.phantom.broken import BROKEN
from preprocessing.sources.phantom.patient import Resolution, Scan, draw_scan, patient_key, visits
from preprocessing.sources.phantom.write import COMPANIONS, image_names, label_ending, label_files, write_scan

GENERATOR = 1  # raised whenever the same seed would give other bytes
CHECKSUMS = "checksums.json"
INFO = SourceInfo(
    name="phantom",
    title="Procedural human from head to pelvis, made by MedDiff itself",
    regions=("head_neck", "chest", "abdomen"),
    licence="Apache-2.0",
    citation="MedDiff phantom",
    access="open",
    size="about 10 MB a case",
    how="Nothing to do: it is generated on this machine.",
)


class PhantomSource(Config):
    """`patients` made-up people of a `seed`, and `broken` cases that a converter must refuse."""

    patients: int = Field(40, ge=0, description="how many people; one in eleven is scanned twice")
    seed: int = Field(0, ge=0, description="same seed, same bytes; more patients keep the first ones")
    broken: int = Field(0, ge=0, description="further cases that must be quarantined, cycling through the ways")
    resolution: Resolution = Field(
        "coarse", description="coarse: 2-3 mm pixels, 2-5 mm slices; fine: about 1 mm, minutes a case; tiny: tests"
    )
    dose_pairs: bool = Field(True, description="also write low-dose and white-noise companions")

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry."""
        return INFO.replace(cases=sum(visits(i) for i in range(self.patients)) + self.broken)

    @property
    def version(self) -> str:
        """16 hex characters over all that decides a case's bytes."""
        decides = self.model_dump(include={"seed", "resolution", "dose_pairs"}) | {"generator": GENERATOR}
        return fingerprint(decides)[:16]

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """Every case with lake-relative names of the files that `fetch` will make."""
        scans = [self._scan(i, v) for i in range(self.patients) for v in range(visits(i))]
        return [self._listed(scan) for scan in scans] + [self._broken(n) for n in range(self.broken)]

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with files that can be opened here, generated first where the lake has none.

        In a bucket they are stored as well, and read from a copy in `scratch`.

        Raises:
            CaseError: the case is not this source's, or its folder in the lake is damaged.
        """
        key = self._key(case.id)
        if case.source != "phantom" or case.version != self.version:
            raise CaseError(f"case {case.id} ({case.version or 'no version'}) is not of this phantom ({self.version})")
        local = lake.local_path(key)
        if local is None:
            local = scratch / key
            _fetch_through_bucket(self, case, lake, key, local)
        elif not (local / CHECKSUMS).is_file():
            self._generate(case.id, local)
        return case.relocated(lambda path: str(local / path.removeprefix(f"{key}/")))

    def is_listed(self, lake: Lake | None) -> bool:
        """Always."""
        return True

    def finish(self, lake: Lake) -> None:
        """Nothing was pulled."""

    def _scan(self, index: int, visit: int) -> Scan:
        return draw_scan(self.seed, index, visit, self.resolution)

    def _key(self, case_id: str) -> str:
        return f"raw/phantom/{self.version}/{case_id}"

    def _listed(self, scan: Scan) -> Case:
        key, ending = self._key(scan.name), label_ending(scan)
        names = COMPANIONS if self.dose_pairs else COMPANIONS[:1]
        return Case(
            source="phantom",
            id=scan.name,
            patient=patient_key(scan.patient.index),
            image=tuple(f"{key}/{name}" for name in image_names(scan)),
            labels=tuple(file.replace(path=f"{key}/{file.path}") for file in label_files(scan)),
            anatomy=scan.patient.anatomy,
            lesion=(f"{key}/lesion.{ending}",) if scan.lesions else (),
            companions=tuple((name, f"{key}/{name}.{ending}") for name in names),
            declared_regions=scan.view.regions,
            licence=INFO.licence,
            citation=INFO.citation,
            version=self.version,
        )

    def _broken(self, number: int) -> Case:
        way = list(BROKEN)[number % len(BROKEN)]
        name, broken = f"broken-{way}-{number}", BROKEN[way]
        key = self._key(name)
        labels = (LabelFile(path=f"{key}/{broken.label}", classes=((5, 5),)),) if broken.label else ()
        return Case(
            source="phantom",
            id=name,
            patient=name,
            image=tuple(f"{key}/{file}" for file in broken.image),
            labels=labels,
            anatomy="full" if labels else "none",
            licence=INFO.licence,
            version=self.version,
        )

    def _generate(self, case_id: str, folder: Path) -> None:
        """Make a case's files in a folder beside the final one, then rename: a killed run leaves no half a case."""
        partial = folder.with_name(f".{case_id}.{uuid.uuid4().hex}.partial")
        partial.mkdir(parents=True)
        try:
            self._write(case_id, partial)
            _write_checksums(partial)
            _move_into_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _write(self, case_id: str, folder: Path) -> None:
        if case_id.startswith("broken-"):
            BROKEN[case_id.removeprefix("broken-").rpartition("-")[0]].write(folder)
        else:
            index, visit = (int(part) for part in case_id.split("-")[1:])
            write_scan(folder, self._scan(index, visit), dose_pair=self.dose_pairs)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _write_checksums(folder: Path) -> None:
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _files(folder)}
    (folder / CHECKSUMS).write_text(canonical_json(sums))


def _move_into_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / CHECKSUMS).is_file():
            raise CaseError(
                f"{folder} exists without {CHECKSUMS}: something else wrote it; remove that folder and run again"
            ) from None


def _fetch_through_bucket(source: PhantomSource, case: Case, lake: Lake, key: str, local: Path) -> None:
    """Bring a case from the bucket; where it is not there, generate it and store it, its checksums last."""
    if (local / CHECKSUMS).is_file():
        return
    if not lake.exists(f"{key}/{CHECKSUMS}"):
        source._generate(case.id, local)
        for name in [n for n in _files(local) if n != CHECKSUMS] + [CHECKSUMS]:
            lake.write(f"{key}/{name}", (local / name).read_bytes())
        return
    partial = local.with_name(f".{case.id}.{uuid.uuid4().hex}.partial")
    for name in [*json.loads(lake.read(f"{key}/{CHECKSUMS}")), CHECKSUMS]:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(lake.read(f"{key}/{name}"))
    _move_into_place(partial, local)
