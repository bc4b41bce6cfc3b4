"""Damaged files of every format: refused with a sentence or read as any other reader reads them; nothing else.

`FUZZ_EXAMPLES=5000 FUZZ_SEED=20000 pytest -m slow -o timeout=0 tests/preprocessing/test_fuzz.py` tries as many others.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from fuzz_files import FORMATS, damage, write_healthy
from fuzz_headers import craft, crafted
from fuzz_readers import judge, read_independently, seal
from fuzz_worker import Worker, WorkerDiedError
from hypothesis import HealthCheck, given, seed, settings
from scipy.linalg import polar

from preprocessing.geometry import Geometry
from preprocessing.resample import resample
from preprocessing.volume import Volume

SECONDS = 10
NEAR_MM = 0.05
FINE = ("refused", "unchanged", "as others read it")
EXAMPLES, SEED = int(os.environ.get("FUZZ_EXAMPLES", "0")), int(os.environ.get("FUZZ_SEED", "10000"))


@pytest.fixture(scope="module")
def decoder():
    worker = Worker(judge, SECONDS)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def others():
    worker = Worker(read_independently, SECONDS)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def sealer():
    worker = Worker(seal, 60)
    yield worker
    worker.close()


def upright(reading):
    """The reading with its axes at right angles, turned about its centre (polar decomposition), where it has three."""
    array, matrix, origin = reading[:3]
    steps = np.linalg.norm(matrix, axis=0)
    if (array.ndim, matrix.shape, origin.shape) != (3, (3, 3), (3,)) or not (np.isfinite(matrix).all() and steps.all()):
        return reading
    turned = polar(matrix / steps)[0] * steps
    return array, turned, origin + (matrix - turned) @ (np.array(array.shape) - 1) / 2


def alike(one, other) -> bool:
    """The same values at the same places."""
    if [a.shape for a in one[:3]] != [b.shape for b in other[:3]]:
        return False
    same_place = all(np.allclose(a, b, atol=NEAR_MM) for a, b in zip(one[1:3], other[1:3], strict=True))
    return same_place and bool(np.array_equal(one[0], other[0]))


class Campaign:
    """Damages one healthy image again and again and sorts what comes of it."""

    def __init__(self, folder: Path, kind: str, decoder: Worker, others: Worker) -> None:
        self.kind, self.decoder, self.others = kind, decoder, others
        self.paths = write_healthy(folder, kind)
        self.files = {path: path.read_bytes() for path in self.paths}
        outcome, self.healthy = self.judge()
        assert outcome == "accepted", self.healthy
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def image(self) -> list[str]:
        found = [str(path) for path in self.paths if path.exists()]
        return found if self.kind == "dcm" else [str(self.paths[0])]

    def judge(self):
        return self.decoder(self.image())

    def damage(self, seed: int) -> dict[Path, bytes | None]:
        return damage(self.files, self.kind, np.random.default_rng(seed))

    def write(self, changed: Mapping[Path, bytes | None]) -> None:
        for path, data in changed.items():
            path.unlink() if data is None else path.write_bytes(data)

    def heal(self) -> None:
        self.write(self.files)

    def tried(self, changed: Mapping[Path, bytes | None]) -> str:
        self.write(changed)
        try:
            outcome = self._outcome()
        except WorkerDiedError as error:
            outcome = f"killed: {error}"
        self.heal()
        self.counts[outcome.split(":")[0]] += 1
        return outcome

    def run(self, seed: int) -> None:
        outcome = self.tried(self.damage(seed))
        if outcome not in FINE:
            self.failures.append(f"{self.kind} seed {seed}: {outcome}")

    def report(self, capsys) -> None:
        with capsys.disabled():
            print(f"\n{self.kind}: {self.counts.total()} inputs, {dict(self.counts)}", end=" ")

    def _outcome(self) -> str:
        outcome, result = self.judge()
        if outcome == "refused":
            return f"hungry: {result}" if re.search(r"\ballocate\b|memory", result, re.IGNORECASE) else outcome
        if outcome != "accepted":
            return f"{outcome}: {result}"
        if alike(result, self.healthy):
            return "unchanged"
        try:
            readings = self.others(self.image())
        except WorkerDiedError as error:
            return f"wrong: other readers die of it ({error})"
        if any(alike(result, reading) or alike(result, upright(reading)) for reading in readings):
            return "as others read it"
        shown = [(r[0].shape, r[1].tolist(), r[2].tolist()) for r in (result, *readings)]
        return f"wrong: sealed {shown[0]}, others read {shown[1:]}"


def campaign(tmp_path, kind: str, decoder: Worker, others: Worker, seeds, capsys) -> None:
    fuzz = Campaign(tmp_path / "files", kind, decoder, others)
    for number in seeds:
        fuzz.run(number)
    fuzz.report(capsys)
    assert not fuzz.failures, "\n".join(fuzz.failures)
    assert fuzz.counts["refused"] > 0.2 * fuzz.counts.total()
    assert fuzz.counts["refused"] < fuzz.counts.total()


def crafted_campaign(tmp_path, kind: str, decoder: Worker, others: Worker, examples: int, capsys) -> None:
    fuzz = Campaign(tmp_path / "files", kind, decoder, others)
    check = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))

    @seed(SEED)
    @check
    @given(crafted(kind))
    def holds(changes):
        outcome = fuzz.tried(craft(fuzz.files, kind, changes))
        assert outcome in FINE, f"{kind} {changes}: {outcome}"

    holds()
    fuzz.report(capsys)
    assert 0 < fuzz.counts["refused"] < fuzz.counts.total()


@pytest.mark.parametrize("kind", FORMATS)
def test_no_extreme_header_hangs_kills_or_fools_the_decoder(tmp_path, kind, decoder, others, capsys):
    crafted_campaign(tmp_path, kind, decoder, others, 12 if kind == "dcm" else 25, capsys)


@pytest.mark.parametrize("kind", FORMATS)
def test_no_damaged_file_hangs_kills_or_fools_the_decoder(tmp_path, kind, decoder, others, capsys):
    campaign(tmp_path, kind, decoder, others, range(24 if kind == "dcm" else 90), capsys)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_sealed_as_it_was_read_or_quarantined(tmp_path, kind, decoder, sealer):
    fuzz = Campaign(tmp_path / "files", kind, decoder, sealer)
    for number in range(500, 502):
        fuzz.write(fuzz.damage(number))
        outcome, result = fuzz.judge()
        status, stored = sealer(fuzz.image(), str(tmp_path / "lake"))
        fuzz.heal()
        if outcome == "refused":
            assert status == "quarantined"
            continue
        assert status == "sealed", stored
        geometry = Geometry.from_dict(result[3])
        volume = resample(Volume(result[0], geometry), 4.0)
        assert np.array_equal(stored[0], volume.image)
        assert np.allclose(stored[1], 4.0)
        assert np.allclose(stored[2], volume.geometry.origin_mm)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_no_damaged_file_of_many_hangs_kills_or_fools_the_decoder(tmp_path, kind, decoder, others, capsys):
    seeds = range(SEED, SEED + (EXAMPLES or (150 if kind == "dcm" else 600)))
    campaign(tmp_path, kind, decoder, others, seeds, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_no_extreme_header_of_many_hangs_kills_or_fools_the_decoder(tmp_path, kind, decoder, others, capsys):
    crafted_campaign(tmp_path, kind, decoder, others, EXAMPLES or (80 if kind == "dcm" else 250), capsys)
