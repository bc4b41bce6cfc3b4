"""The manifest's rows as models, as a table in memory and as a Parquet file.

Columns that an older meddiff did not write are empty; a newer format is refused by its number.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infra.config import Config
from infra.errors import UserError
from preprocessing.case import AnatomyKind, RegionName
from preprocessing.decisions import suffix
from preprocessing.split import Split

FORMAT = 1
FORMAT_KEY = b"meddiff.format"


class ManifestRow(Config):
    """One case; `cluster`, `split` and `twins` are the commit's to decide, whatever stands in them before.

    An empty `signature` is the one that the newest manifest has for the same `key`.
    `root` is the id of the folder that a source of several folders read the case from. Where two of them list the same
    name, the commit adds the folder's id to both cases' names.
    """

    source: str
    case: str
    patient: str
    status: Literal["sealed", "quarantined"]
    reason: str | None = None
    input: str = ""
    key: str = ""
    seal: str = ""
    regions: tuple[RegionName, ...] = ()
    anatomy: AnatomyKind = "none"
    lesion: bool = False
    licence: str = "unknown"
    citation: str = ""
    cluster: str = ""
    split: Split = "train"
    origin: tuple[str, ...] = ()
    version: str = ""
    companions: tuple[str, ...] = ()
    signature: str = ""
    root: str = ""
    declared: Literal["", "train", "val", "test"] = ""
    twins: tuple[str, ...] = ()

    @property
    def listed(self) -> str:
        """The case's id as its source lists it."""
        return self.case.removesuffix(suffix(self.root))


COLUMNS = tuple(ManifestRow.model_fields)
READ = tuple(name for name in COLUMNS if name != "signature")  # 4 KB a case, for finding duplicates only
LISTS = ("regions", "origin", "companions", "twins")
SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.string()) if name in LISTS else pa.bool_() if name == "lesion" else pa.string())
        for name in COLUMNS
    ],
    {FORMAT_KEY: str(FORMAT).encode()},
)


def to_frame(rows: Sequence[ManifestRow]) -> pd.DataFrame:
    """The rows as a table with all columns."""
    table = pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], SCHEMA)
    return pd.DataFrame({name: _column(name, table.column(name)) for name in COLUMNS})


def encode(rows: pd.DataFrame, notes: Mapping[bytes, str]) -> bytes:
    """A Parquet file of the rows, with `notes` in its metadata."""
    table = pa.Table.from_pydict({name: list(rows[name]) for name in COLUMNS}, SCHEMA)
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**(SCHEMA.metadata or {}), **notes}), stream, compression="zstd")
    return stream.getvalue()


def decode(stream: BinaryIO, where: str, columns: Collection[str]) -> tuple[pd.DataFrame, dict[bytes, bytes]]:
    """These columns of a Parquet file's rows, and its notes.

    Raises:
        UserError: a newer meddiff wrote it.
    """
    file = pq.ParquetFile(stream)
    notes = file.schema_arrow.metadata or {}
    if (number := int(notes.get(FORMAT_KEY, b"0"))) > FORMAT:
        raise UserError(f"{where} has format {number}; this meddiff reads up to {FORMAT}: install a newer one")
    there = set(file.schema_arrow.names)
    empty = pa.chunked_array([[""] * file.metadata.num_rows])
    # one column gains nothing from threads, and a process that ends beside Arrow's was aborted once
    read = partial(file.read, use_threads=False)
    found = {n: _column(n, read([n]).column(n) if n in there else empty) for n in columns}
    return pd.DataFrame(found), notes


def read_notes(stream: BinaryIO) -> dict[bytes, bytes]:
    """The notes of a Parquet file, for which none of its rows is read."""
    return pq.read_schema(stream).metadata or {}


def _column(name: str, values: pa.ChunkedArray) -> "pd.Series[Any]":
    found = values.to_pylist()
    return pd.Series([tuple(value) for value in found] if name in LISTS else found, dtype=object)
