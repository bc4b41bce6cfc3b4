"""The manifest: the table of sealed and quarantined cases; its fingerprint is the version of the data.

Manifests are numbered Parquet files that are only ever added. A commit replaces all rows of the sources it names and
keeps the others; of two commits at once the loser reads again, merges and takes the next number.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infra.config import Config
from infra.errors import UserError
from infra.fingerprint import fingerprint
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.case import AnatomyKind, RegionName
from preprocessing.duplicates import clusters
from preprocessing.origins import absolute_origin, known_roots
from preprocessing.recipe import Recipe
from preprocessing.split import Split, case_splits

FORMAT = 1
FORMAT_KEY = b"meddiff.format"
IDENTITY = ("source", "case", "input", "seal", "status", "reason", "cluster", "split")
SHOWN = ("source", "case", "patient", "status", "reason", "url", "origin",
         "regions", "anatomy", "lesion", "licence", "cluster", "split")  # fmt: skip


class ManifestRow(Config):
    """One case; `cluster` and `split` are the commit's to decide, whatever stands in them before."""

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
    cluster: str = ""
    split: Split = "train"
    origin: tuple[str, ...] = ()
    version: str = ""
    companions: tuple[str, ...] = ()
    signature: str = ""


COLUMNS = tuple(ManifestRow.model_fields)
LISTS = ("regions", "origin", "companions")
SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.string()) if name in LISTS else pa.bool_() if name == "lesion" else pa.string())
        for name in COLUMNS
    ],
    {FORMAT_KEY: str(FORMAT).encode()},
)


@dataclass(frozen=True)
class Manifest:
    """The rows, sorted by source and case, and the manifest's number (0 = there is none yet)."""

    rows: pd.DataFrame
    number: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """32 hex characters over what every case is; never over time, host or number."""
        return fingerprint(self.rows[list(IDENTITY)].to_numpy().tolist())

    def sealed(
        self,
        split: str | None = None,
        region: str | None = None,
        lesion: bool | None = None,
        anatomy: str | None = None,
        source: str | None = None,
    ) -> pd.DataFrame:
        """The sealed cases that have all that is asked for, sorted by source and case."""
        rows = self.rows[self.rows["status"] == "sealed"]
        wanted = {"split": split, "lesion": lesion, "anatomy": anatomy, "source": source}
        for column, value in wanted.items():
            if value is not None:
                rows = rows[rows[column] == value]
        if region is not None:
            rows = rows[[region in regions for regions in rows["regions"]]] if len(rows) else rows
        return rows.reset_index(drop=True)

    def by_case(self) -> dict[tuple[str, str], ManifestRow]:
        """The rows as models, by source and case."""
        rows = (ManifestRow.model_validate(values) for values in self.rows.to_dict("records"))
        return {(row.source, row.case): row for row in rows}


def manifest_folder(recipe: Recipe) -> str:
    """Where the manifests of a recipe lie in the lake."""
    return f"manifests/{recipe.fingerprint}"


def read_manifest(lake: Lake, recipe: Recipe, number: int | None = None) -> Manifest:
    """The newest manifest of a recipe, or the one of this number; number 0 and no rows where there is none.

    Raises:
        UserError: there is no manifest of that number, or it was written by a newer meddiff.
    """
    if number is None:
        names = lake.list(manifest_folder(recipe))
        number = max((int(name.rpartition("/")[2].removesuffix(".parquet")) for name in names), default=0)
        if number == 0:
            return Manifest(_frame([]))
    try:
        data = lake.read(_key(recipe, number))
    except FileNotFoundError:
        raise UserError(f"{lake.url} has no manifest {number} of recipe {recipe.name}") from None
    return Manifest(_decode(data, lake.url_of(_key(recipe, number))), number)


def commit(lake: Lake, recipe: Recipe, rows: Mapping[str, Sequence[ManifestRow]]) -> Manifest:
    """A new manifest in which `rows` are all the rows of their sources; the newest one where nothing would change.

    Clusters and splits are computed anew over all rows.
    """
    while True:
        newest = read_manifest(lake, recipe)
        kept = [row for row in newest.by_case().values() if row.source not in rows]
        merged = _decide([*kept, *(row for some in rows.values() for row in some)], recipe)
        frame = _frame(merged)
        if newest.number and frame.equals(newest.rows):
            return newest
        try:
            lake.create(_key(recipe, newest.number + 1), _encode(frame))
        except FileExistsError:
            continue
        return Manifest(frame, newest.number + 1)


def case_rows(manifest: Manifest, lake: Lake, settings: Settings | None = None) -> list[dict[str, Any]]:
    """What `meddiff cases --json` prints: one object per case, sorted by source and case; urls and origins absolute."""
    roots = known_roots(settings or load_settings())
    rows = []
    for row in manifest.by_case().values():
        values = row.model_dump(mode="json")
        values["url"] = lake.url_of(row.key) if row.key else None
        values["origin"] = [absolute_origin(origin, lake, roots) for origin in row.origin]
        rows.append({name: values[name] for name in SHOWN})
    return rows


def _decide(rows: list[ManifestRow], recipe: Recipe) -> list[ManifestRow]:
    rows = sorted(rows, key=lambda row: (row.source, row.case))
    groups = clusters([f"{row.source}/{row.case}" for row in rows], [row.signature for row in rows])
    splits = case_splits(
        [row.source for row in rows],
        [row.patient for row in rows],
        groups,
        [row.status == "sealed" for row in rows],
        recipe.split,
    )
    return [row.replace(cluster=c, split=s) for row, c, s in zip(rows, groups, splits, strict=True)]


def _key(recipe: Recipe, number: int) -> str:
    return f"{manifest_folder(recipe)}/{number:08d}.parquet"


def _frame(rows: Sequence[ManifestRow]) -> pd.DataFrame:
    table = pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], SCHEMA)
    return _to_pandas(table)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    for name in LISTS:
        columns[name] = [tuple(value) for value in columns[name]]
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def _encode(frame: pd.DataFrame) -> bytes:
    values = frame.to_dict("records")
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values, SCHEMA), stream, compression="zstd")
    return stream.getvalue()


def _decode(data: bytes, where: str) -> pd.DataFrame:
    table = pq.read_table(io.BytesIO(data))
    number = int((table.schema.metadata or {}).get(FORMAT_KEY, b"0"))
    if number > FORMAT:
        raise UserError(f"{where} has format {number}; this meddiff reads up to {FORMAT}: install a newer one")
    return _to_pandas(table)
