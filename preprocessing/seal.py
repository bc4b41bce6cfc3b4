"""The seal: the last object of a case, naming every other one with its size and SHA-256.

It lies beside the case's group (`<input>.seal.json` next to `<input>.zarr`), so that no reader of OME-Zarr trips over
it. A case without its seal does not exist.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from infra.config import Config
from infra.fingerprint import canonical_json, digest, fingerprint
from infra.lake import Lake
from preprocessing import layout
from preprocessing.case import CaseError
from preprocessing.shards import num_chunks

FORMAT = 1


class Sealable(Protocol):
    """The part of a case's record that its seal repeats."""

    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def case(self) -> str: ...  # noqa: D102
    @property
    def input(self) -> str: ...  # noqa: D102


class Seal(Config):
    """The last object of a case: every object under the group with its size and SHA-256."""

    format: int = FORMAT
    source: str
    case: str
    input: str
    digest: str
    objects: dict[str, tuple[int, str]]


def seal_key(key: str) -> str:
    """Where the seal of the case at `…/<input>.zarr` lies: beside the group, so that no reader trips over it."""
    return f"{key.removesuffix('.zarr')}.seal.json"


def seal_case(lake: Lake, key: str, record: Sealable) -> str:
    """Check that the case is complete and write the seal; returns its digest.

    Complete: every array and group that the metadata names is there, and every shard of theirs, with all its chunks.

    Raises:
        CaseError: an object is missing or damaged, which names it.
    """
    name = f"{record.source}/{record.case}"
    names = [found.removeprefix(f"{key}/") for found in lake.list(key)]
    shards = _expected(lake, key, names)
    if missing := sorted(shards.keys() - set(names)):
        raise CaseError(f"{name}: {len(missing)} objects are missing, {missing[0]} first; ingest it again")

    def checked(part: str) -> tuple[int, str]:
        try:
            return _checksum(lake, f"{key}/{part}", shards.get(part))
        except ValueError as error:
            raise CaseError(f"{name}: {part} is damaged: {error}; ingest it again") from error

    with ThreadPoolExecutor(4) as pool:
        objects = dict(zip(names, pool.map(checked, names), strict=True))
    seal = Seal(
        source=record.source, case=record.case, input=record.input, digest=fingerprint(objects), objects=objects
    )
    lake.write(seal_key(key), canonical_json(seal.model_dump(mode="json")).encode())
    return seal.digest


def read_seal(lake: Lake, key: str) -> Seal | None:
    """The case's seal, None where it has none, or one that was damaged.

    Raises:
        CaseError: the seal is of a newer format.
    """
    try:
        values = json.loads(lake.read(seal_key(key)))
        number = values["format"]
        seal = Seal.model_validate(values) if number <= FORMAT else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if number > FORMAT:
        raise CaseError(f"{key}: its seal has format {number}, this meddiff reads up to {FORMAT}: install a newer one")
    return seal if seal and seal.digest == fingerprint(seal.objects) else None


def is_sealed(lake: Lake, key: str) -> bool:
    """Whether the case is complete; false for one that a killed writer left."""
    return read_seal(lake, key) is not None


def damaged_objects(lake: Lake, key: str) -> list[str]:
    """The sealed objects that are missing or whose bytes are not those that were sealed (reads the whole case).

    Raises:
        CaseError: the case is not sealed.
    """
    seal = read_seal(lake, key)
    if seal is None:
        raise CaseError(f"{key} is not sealed")

    def is_damaged(name: str) -> bool:
        try:
            return _checksum(lake, f"{key}/{name}") != seal.objects[name]
        except FileNotFoundError:
            return True

    with ThreadPoolExecutor(4) as pool:
        return [name for name, bad in zip(seal.objects, pool.map(is_damaged, seal.objects), strict=True) if bad]


@dataclass(frozen=True)
class _Shard:
    """What a shard must hold: its grid of chunks, and how many of them hold voxels."""

    grid: tuple[int, ...]
    chunks: int


def _expected(lake: Lake, key: str, names: list[str]) -> dict[str, _Shard | None]:
    """Every object that a case must have: what its metadata names, and the metadata itself (None)."""
    expected: dict[str, _Shard | None] = {}
    waiting = {"zarr.json", *(name for name in names if name.endswith("zarr.json"))}
    while waiting:
        name = waiting.pop()
        expected[name] = None
        if name not in names:
            continue
        document = json.loads(lake.read(f"{key}/{name}"))
        folder = name.removesuffix("zarr.json")
        if document["node_type"] == "array":
            expected |= _shards_of(folder, document)
        else:
            parts = {f"{folder}{part}/zarr.json" for part in layout.members(document["attributes"])}
            waiting |= parts - expected.keys()
    return expected


def _shards_of(folder: str, document: dict) -> dict[str, _Shard]:
    shard = document["chunk_grid"]["configuration"]["chunk_shape"]
    chunk = document["codecs"][0]["configuration"]["chunk_shape"]
    grid = tuple(s // c for s, c in zip(shard, chunk, strict=True))
    counts = layout.chunks_per_object(document["shape"], chunk, shard)
    return {folder + part: _Shard(grid, chunks) for part, chunks in counts.items()}


def _checksum(lake: Lake, key: str, shard: _Shard | None = None) -> tuple[int, str]:
    data = lake.read(key)
    if shard and (found := num_chunks(data, shard.grid)) < shard.chunks:
        raise ValueError(f"it holds {found} of {shard.chunks} chunks")
    return len(data), digest(data)
