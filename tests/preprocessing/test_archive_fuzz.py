"""Damaged archives of every kind: refused with a sentence or read right, and nothing else ever happens.

The work is done in a process of its own with little address space, so that a memory bomb fails as one.
"""

import random
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from archive_samples import FILES, plain_7z, sealed_7z, write_archive, write_tar

from infra.errors import UserError
from preprocessing.archive import open_archive
from preprocessing.case import CaseError

LITTLE = {name: data[:2000] for name, data in FILES.items()}
KINDS = ("tar", "pax.tar", "tar.gz", "tar.xz", "store.zip", "deflate.zip", "bzip2.zip", "lzma.zip", "7z", "plain.7z")
CHECKED = ("zip", "7z")  # formats that have a checksum per member
ROUNDS = 40
ADDRESS_SPACE = 2**30  # bytes more than the interpreter and its libraries have mapped
TREE = "untouched"


def samples(folder: Path) -> dict[str, bytes]:
    made = {}
    for kind in KINDS:
        if kind == "pax.tar":
            path = write_tar(folder / "sample.pax.tar", {"long/" * 30 + name: data for name, data in LITTLE.items()})
        elif kind == "plain.7z":
            path = plain_7z(folder / "sample.plain.7z", LITTLE)
        else:
            path = write_archive(folder, kind, LITTLE)
        made[kind] = path.read_bytes()
    return made


def mutated(data: bytes, random_: random.Random) -> bytes:
    """Some bytes changed, a piece cut out, doubled or zeroed; headers at both ends are hit more often."""
    out = bytearray(data)
    for _ in range(random_.choice([1, 1, 2, 8])):
        at = random_.choice(
            [random_.randrange(len(out)), random_.randrange(min(len(out), 600)), -random_.randrange(1, 300)]
        )
        at %= len(out)
        length = random_.randrange(1, 40)
        match random_.randrange(6):
            case 0:
                out[at] = random_.randrange(256)
            case 1:
                out[at] ^= 1 << random_.randrange(8)
            case 2:
                out[at : at + length] = bytes(random_.randrange(256) for _ in range(length))
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length]
            case 5:
                out[at : at + 8] = random_.choice([b"\xff" * 8, bytes(8), b"\x80" + bytes(7), b"\0\0\0\x7f"])
    return bytes(out)


def read_all(path: Path, folder: Path) -> tuple[int, int]:
    """How many members were read and refused; every file written is under the folder and as declared."""
    try:
        archive = open_archive(path)
    except UserError:
        return 0, 1
    read = refused = 0
    for member in archive.members:
        try:
            got = archive.extract([member.name], folder)[member.name]
        except (CaseError, UserError):
            refused += 1
            continue
        read += 1
        data = got.read_bytes()
        assert got.resolve().is_relative_to(folder.resolve())
        assert len(data) == member.size
        if path.name.endswith(CHECKED) and member.crc is not None:
            assert zlib.crc32(data) == member.crc
    assert not list(folder.rglob("*.partial"))
    return read, refused


def fuzz(root: Path, seed: int) -> None:
    """All rounds, in this process; prints how many members were read and refused."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_SPACE, mapped + ADDRESS_SPACE))
    random_, totals = random.Random(seed), [0, 0]
    for kind, data in samples(root).items():
        for number in range(ROUNDS):
            damaged = mutated(data, random_)
            if kind == "plain.7z" and len(damaged) > 40 and number % 4:
                damaged = sealed_7z(damaged)
            home = root / TREE / f"{kind}-{number}"
            home.mkdir(parents=True)
            path = home / f"a.{kind}"
            path.write_bytes(damaged)
            read, refused = read_all(path, home / "out")
            assert {p.name for p in home.iterdir()} <= {path.name, path.name + ".index.json", "out"}, home
            totals = [totals[0] + read, totals[1] + refused]
    print(*totals)


@pytest.mark.timeout(120)
def test_damaged_archives_are_read_right_or_refused(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("address space is only limited on Linux")
    code = f"from pathlib import Path; from test_archive_fuzz import fuzz; fuzz(Path({str(tmp_path)!r}), 20261125)"
    paths = [str(Path(__file__).parent), *sys.path]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    read, refused = map(int, run.stdout.split())
    assert read > 100
    assert refused > 100
    assert {p.name for p in tmp_path.iterdir()} == {TREE, *(f"sample.{kind}" for kind in KINDS)}
