"""The store: one sealed OME-Zarr group per case, written once, read in boxes.

Order of writing: shards, then metadata, then the seal. Nothing is ever deleted or truncated: a second writer of the
same case puts equal bytes. A case without its seal does not exist for `open_case`.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import Field
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from infra.config import Config
from infra.lake import Lake
from preprocessing import layout
from preprocessing.anatomy import class_names
from preprocessing.case import AnatomyKind, CaseError, RegionName
from preprocessing.geometry import Geometry
from preprocessing.hu_audit import HuAudit
from preprocessing.layout import Pyramid
from preprocessing.recipe import Recipe
from preprocessing.regions import RegionExtent
from preprocessing.seal import is_sealed, read_seal, seal_case
from preprocessing.shards import CODECS, ShardedArray, encode_shard

__all__ = ["CaseRecord", "StoredCase", "is_sealed", "open_case", "seal_case", "write_case"]

FORMAT = 1


class CaseRecord(Config):
    """What is known of a stored case; it lies in the group's attribute `meddiff`."""

    format: int = FORMAT
    source: str
    case: str
    patient: str
    input: str
    recipe: dict[str, Any]
    recipe_fingerprint: str
    regions: tuple[RegionExtent, ...] = ()
    anatomy: AnatomyKind = "none"
    lesion: bool = False
    licence: str = "unknown"
    citation: str = ""
    source_geometry: dict[str, list]
    geometry: dict[str, list]
    companions: tuple[str, ...] = ()
    audit: HuAudit | None = None
    findings: tuple[str, ...] = ()
    signature: str = Field("", description="what duplicates are found by")
    classes: dict[int, str] = Field(default_factory=class_names)
    checksums: dict[str, str] = Field(default_factory=dict, description="SHA-256 of each source file, by its role")


def write_case(lake: Lake, key: str, pyramid: Pyramid, record: CaseRecord, recipe: Recipe) -> None:
    """Write every object of a case under `key` but its seal; running it again puts the same bytes.

    Raises:
        OSError: the lake cannot be written, e.g. no space is left.
    """
    arrays = _arrays(pyramid)
    lake.write_all((f"{key}/{path}/{name}", data) for path, array in arrays for name, data in _shards(array, recipe))
    documents = {path: _array_document(array, recipe) for path, array in arrays}
    documents |= {path: layout.group_document(attributes) for path, attributes in _groups(pyramid, record)}
    for path, document in sorted(documents.items(), reverse=True):  # the root's comes last
        lake.write(f"{key}/{path}/zarr.json" if path else f"{key}/zarr.json", document)


def open_case(lake: Lake, key: str) -> "StoredCase":
    """A sealed case.

    Raises:
        CaseError: it is not sealed, or of a newer format.
    """
    if read_seal(lake, key) is None:
        raise CaseError(f"{lake.url_of(key)} is not sealed: its writer was stopped; ingest its source again")
    return StoredCase(lake, key)


class StoredCase:
    """Reads boxes of one sealed case; opens each array once; cheap to make, picklable."""

    def __init__(self, lake: Lake, key: str) -> None:
        self.lake = lake
        self.key = key
        self._open: dict[str, ShardedArray] = {}

    def __reduce__(self) -> tuple:
        return StoredCase, (self.lake, self.key)

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return json.loads(self.lake.read(f"{self.key}/zarr.json"))["attributes"]

    @cached_property
    def record(self) -> CaseRecord:
        """What is known of the case."""
        return CaseRecord.model_validate(self._attributes[layout.OWN_KEY])

    @property
    def num_levels(self) -> int:
        """How many pyramid levels there are."""
        return len(self._attributes["ome"]["multiscales"][0]["datasets"])

    @cached_property
    def _geometries(self) -> list[Geometry]:
        shapes = [self._array(str(level)).shape for level in range(self.num_levels)]
        return layout.level_geometries(self._attributes, shapes)

    def geometry(self, level: int = 0) -> Geometry:
        """The geometry of a level, axis-aligned LPS."""
        return self._geometries[level]

    def read(self, name: str, level: int, start_zyx: tuple[int, ...], shape_zyx: tuple[int, ...]) -> NDArray:
        """A box of `image`, `anatomy`, `lesion` or a companion: int16 HU or uint8 labels of shape `shape_zyx`.

        What lies outside the volume is padded: -1024 HU, label 0. Companions exist at level 0 only.

        Raises:
            CaseError: the case has nothing of that name or level, or it is damaged.
        """
        path = layout.array_path(name, level)
        array = self._array(path)
        low = [min(max(0, s), n) for s, n in zip(start_zyx, array.shape, strict=True)]
        high = [max(a, min(s + c, n)) for a, s, c, n in zip(low, start_zyx, shape_zyx, array.shape, strict=True)]
        box = self._read_box(path, low, high)
        if box.shape == tuple(shape_zyx):
            return box
        out = np.full(shape_zyx, layout.FILL.get(name, layout.FILL["image"]), box.dtype)
        out[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start_zyx, strict=True))] = box
        return out

    def read_all(self, name: str, level: int = 0) -> NDArray:
        """The whole array of a name at a level."""
        shape = self._array(layout.array_path(name, level)).shape
        return self.read(name, level, (0, 0, 0), shape)

    def thumbnail(self, region: RegionName, name: str) -> NDArray:
        """The region resized to a cube: `image` int16 HU, `anatomy` or `lesion` uint8.

        Raises:
            CaseError: the case has no such region or label, or it is damaged.
        """
        path = f"thumbnails/{region}/{name}"
        return self._read_box(path, [0, 0, 0], list(self._array(path).shape))

    def _read_box(self, path: str, low: list[int], high: list[int]) -> NDArray:
        array = self._array(path)
        try:
            return array.read(tuple(low), tuple(high))
        except (FileNotFoundError, ValueError, RuntimeError) as error:
            where = self.lake.url_of(f"{self.key}/{path}")
            raise CaseError(f"{where} is damaged ({error}); `meddiff cases --verify` finds all that is") from error

    def _array(self, path: str) -> ShardedArray:
        if path not in self._open:
            try:
                self._open[path] = ShardedArray(self.lake, f"{self.key}/{path}")
            except FileNotFoundError:
                raise CaseError(f"{self.lake.url_of(self.key)} holds no {path}") from None
        return self._open[path]


def _arrays(pyramid: Pyramid) -> list[tuple[str, NDArray]]:
    levels = {"image": pyramid.image, "anatomy": pyramid.anatomy, "lesion": pyramid.lesion or ()}
    arrays = [(layout.array_path(name, k), a) for name, stack in levels.items() for k, a in enumerate(stack)]
    arrays += [(layout.array_path(name, 0), data) for name, data in sorted(pyramid.companions.items())]
    arrays += [
        (f"thumbnails/{region}/{name}", data)
        for region, cubes in sorted(pyramid.thumbnails.items())
        for name, data in sorted(cubes.items())
    ]
    return arrays


def _groups(pyramid: Pyramid, record: CaseRecord) -> list[tuple[str, dict]]:
    geometry, shapes = pyramid.geometry, [level.shape for level in pyramid.image]
    names = ["anatomy"] + (["lesion"] if pyramid.lesion else [])
    groups = [("", layout.image_attributes("image", geometry, shapes, record.model_dump(mode="json")))]
    groups += [("labels", layout.labels_attributes(names))]
    groups += [(f"labels/{name}", layout.label_attributes(name, geometry, shapes)) for name in names]
    for name in sorted(pyramid.companions):
        groups += [("companions", {}), (f"companions/{name}", layout.image_attributes(name, geometry, shapes[:1]))]
    for region in sorted(pyramid.thumbnails):
        groups += [("thumbnails", {}), (f"thumbnails/{region}", {})]
    return groups


def _shards(data: NDArray, recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of all shards of an array."""
    chunk, shard = layout.chunk_and_shard(data.shape, recipe)
    for name in layout.object_keys(data.shape, shard):
        place = [int(part) for part in name.split("/")[1:]]
        box = data[tuple(slice(i * s, i * s + s) for i, s in zip(place, shard, strict=True))]
        yield name, encode_shard(box, chunk, shard, CODECS[recipe.codec], _fill(data))


def _fill(data: NDArray) -> int:
    return layout.FILL["image"] if data.dtype == np.int16 else 0


def _array_document(data: NDArray, recipe: Recipe) -> bytes:
    """`zarr.json` of an array, as zarr-python words it."""
    chunk, shard = layout.chunk_and_shard(data.shape, recipe)
    codec = CODECS[recipe.codec]
    blosc = BloscCodec(typesize=data.itemsize, cname=codec.name, clevel=codec.level, shuffle=codec.shuffle)
    array = zarr.create_array(
        MemoryStore(),
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunk,
        shards=shard,
        compressors=blosc,
        fill_value=_fill(data),
        dimension_names=["z", "y", "x"],
    )
    return json.dumps(array.metadata.to_dict(), indent=1).encode()
