"""The seal: the last object of a case, naming every other one with its size and SHA-256.

It lies beside the case's group (`<input>.seal.json` next to `<input>.zarr`), so that no reader of OME-Zarr trips over
it. A case without its seal does not exist.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from infra.config import Config
from infra.fingerprint import canonical_json, digest, fingerprint
from infra.lake import Lake
from preprocessing import layout
from preprocessing.case import CaseError

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
    """Check that every object of the case is there and write the seal; returns its digest.

    Raises:
        CaseError: an object is missing, which names it.
    """
    names = [name.removeprefix(f"{key}/") for name in lake.list(key)]
    if missing := sorted(_expected(lake, key, names) - set(names)):
        raise CaseError(f"{record.source}/{record.case}: {len(missing)} objects are missing, {missing[0]} first")
    with ThreadPoolExecutor(4) as pool:
        sums = pool.map(lambda name: _checksum(lake, f"{key}/{name}"), names)
        objects = dict(zip(names, sums, strict=True))
    seal = Seal(
        source=record.source, case=record.case, input=record.input, digest=fingerprint(objects), objects=objects
    )
    lake.write(seal_key(key), canonical_json(seal.model_dump(mode="json")).encode())
    return seal.digest


def read_seal(lake: Lake, key: str) -> Seal | None:
    """The case's seal, None where it has none.

    Raises:
        CaseError: the seal is of a newer format.
    """
    try:
        values = json.loads(lake.read(seal_key(key)))
    except FileNotFoundError:
        return None
    if values["format"] > FORMAT:
        raise CaseError(f"{key}: its seal has format {values['format']}, this meddiff reads up to {FORMAT}")
    return Seal.model_validate(values)


def is_sealed(lake: Lake, key: str) -> bool:
    """Whether the case is complete; false for one that a killed writer left."""
    return lake.exists(seal_key(key))


def damaged_objects(lake: Lake, key: str) -> list[str]:
    """The objects whose bytes are not those that were sealed (reads the whole case)."""
    seal = read_seal(lake, key)
    if seal is None:
        raise CaseError(f"{key} is not sealed")
    return [name for name, sums in seal.objects.items() if _checksum(lake, f"{key}/{name}") != sums]


def _expected(lake: Lake, key: str, names: list[str]) -> set[str]:
    """The root and all shards of every array whose metadata is there."""
    expected = {"zarr.json"}
    for name in names:
        if name.endswith("zarr.json"):
            document = json.loads(lake.read(f"{key}/{name}"))
            if document["node_type"] == "array":
                shard = document["chunk_grid"]["configuration"]["chunk_shape"]
                folder = name.removesuffix("zarr.json")
                expected |= {folder + part for part in layout.object_keys(document["shape"], shard)}
    return expected


def _checksum(lake: Lake, key: str) -> tuple[int, str]:
    data = lake.read(key)
    return len(data), digest(data)
