"""The manifest: the table of sealed and quarantined cases; its fingerprint is the version of the data.

Manifests are numbered Parquet files that are only ever added. A commit replaces all rows of the sources it names (of
the folders it names, where a source reads several) and keeps the others; of two commits at once the loser reads again,
merges and takes the next number.
"""

import io
from collections.abc import Collection, Mapping, Sequence
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
from preprocessing.duplicates import Twins, clusters, find_twins
from preprocessing.origins import absolute_origin, known_roots
from preprocessing.recipe import Recipe
from preprocessing.split import Split, listed_splits, without_leaks

FORMAT = 1
FORMAT_KEY = b"meddiff.format"
IDENTITY = ("source", "case", "input", "seal", "status", "reason", "cluster", "split")
SHOWN = ("source", "case", "patient", "status", "reason", "url", "origin",
         "regions", "anatomy", "lesion", "licence", "cluster", "split")  # fmt: skip


class ManifestRow(Config):
    """One case; `cluster`, `split` and `twins` are the commit's to decide, whatever stands in them before.

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
        return self.case.removesuffix(_suffix(self.root))


COLUMNS = tuple(ManifestRow.model_fields)
LISTS = ("regions", "origin", "companions", "twins")
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
    paper_like: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """32 hex characters over what every case is; never over time, host or number."""
        rows = self.rows[list(IDENTITY)].to_numpy().tolist()
        return fingerprint({"paper_like": rows} if self.paper_like else rows)

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
        rows = (ManifestRow.model_validate(values) for values in self.rows[list(COLUMNS)].to_dict("records"))
        return {(row.source, row.case): row for row in rows}


def manifest_folder(recipe: Recipe) -> str:
    """Where the manifests of a recipe lie in the lake."""
    return f"manifests/{recipe.fingerprint}"


def read_manifest(lake: Lake, recipe: Recipe, number: int | None = None) -> Manifest:
    """The newest manifest of a recipe, or the one of this number; number 0 and no rows where there is none.

    A recipe whose split is `paper_like` reads the same manifest without exclusions: every row is marked in a column of
    that name, and the fingerprint is another.

    Raises:
        UserError: there is no manifest of that number, or it was written by a newer meddiff.
    """
    if number is None:
        names = lake.list(manifest_folder(recipe))
        number = max((int(name.rpartition("/")[2].removesuffix(".parquet")) for name in names), default=0)
    if number == 0:
        return _as_read(Manifest(_frame([])), recipe)
    try:
        data = lake.read(_key(recipe, number))
    except FileNotFoundError:
        raise UserError(f"{lake.url} has no manifest {number} of recipe {recipe.name}") from None
    return _as_read(Manifest(_decode(data, lake.url_of(_key(recipe, number))), number), recipe)


def _as_read(manifest: Manifest, recipe: Recipe) -> Manifest:
    if not recipe.split.paper_like:
        return manifest
    rows = manifest.rows.assign(split=_listed_splits(manifest.rows, recipe), paper_like=True)
    return Manifest(rows, manifest.number, paper_like=True)


def commit(
    lake: Lake, recipe: Recipe, rows: Mapping[str, Sequence[ManifestRow]], roots: Collection[str] | None = None
) -> Manifest:
    """A new manifest in which `rows` are all the rows of their sources; the newest one where nothing would change.

    With `roots`, they are only all the rows of these folders of their sources. Names, clusters and splits are decided
    anew over all rows.
    """
    recipe = recipe.stored
    frame = _frame([row for some in rows.values() for row in some])
    while True:
        newest = read_manifest(lake, recipe)
        replaced = newest.rows["source"].isin(list(rows))
        if roots is not None:
            replaced &= newest.rows["root"].isin(list(roots))
        merged = _decide(pd.concat([newest.rows[~replaced], frame]), newest.rows, lake, recipe)
        if newest.number and merged.equals(newest.rows):
            return newest
        try:
            lake.create(_key(recipe, newest.number + 1), _encode(merged))
        except FileExistsError:
            continue
        return Manifest(merged, newest.number + 1)


def case_rows(manifest: Manifest, lake: Lake, settings: Settings | None = None) -> list[dict[str, Any]]:
    """What `meddiff cases --json` prints: one object per case, sorted by source and case; urls and origins absolute.

    Rows that were read `paper_like` say so under that name.
    """
    roots = known_roots(settings or load_settings())
    shown = (*SHOWN, "paper_like") if manifest.paper_like else SHOWN
    rows = []
    for values in manifest.rows.to_dict("records"):
        values["url"] = lake.url_of(values["key"]) if values["key"] else None
        values["origin"] = [absolute_origin(origin, lake, roots) for origin in values["origin"]]
        values["regions"] = list(values["regions"])
        rows.append({name: values[name] for name in shown})
    return rows


def _decide(frame: pd.DataFrame, before: pd.DataFrame, lake: Lake, recipe: Recipe) -> pd.DataFrame:
    frame = _with_names(frame)
    keys = [key if status == "sealed" else "" for key, status in zip(frame["key"], frame["status"], strict=True)]
    twins = _twins(frame[frame["status"] == "sealed"], before, lake)
    groups = clusters([f"{source}/{case}" for source, case in zip(frame["source"], frame["case"], strict=True)],
                      keys, twins)  # fmt: skip
    sources, patients = list(frame["source"]), list(frame["patient"])
    listed = _listed_splits(frame, recipe)
    splits = without_leaks(listed, sources, patients, groups, [status == "sealed" for status in frame["status"]])
    others: dict[str, list[str]] = {}
    for one, other in twins:
        others.setdefault(one, []).append(other)
        others.setdefault(other, []).append(one)
    decided = {"cluster": groups, "split": splits, "twins": [tuple(sorted(others.get(key, ()))) for key in keys]}
    return frame.assign(**{name: pd.Series(values, dtype=object) for name, values in decided.items()})


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows sorted by source and case; cases of one name from several folders get their folder's id behind it."""
    listed = [case.removesuffix(_suffix(root)) for case, root in zip(frame["case"], frame["root"], strict=True)]
    frame = frame.assign(case=pd.Series(listed, index=frame.index, dtype=object))
    several = frame.duplicated(["source", "case"], keep=False)
    names = [case + _suffix(root) * again for case, root, again in zip(listed, frame["root"], several, strict=True)]
    frame = frame.assign(case=pd.Series(names, index=frame.index, dtype=object))
    return frame.sort_values(["source", "case"], kind="stable", ignore_index=True)


def _suffix(root: str) -> str:
    return f"@{root[:8]}" if root else ""


def _twins(sealed: pd.DataFrame, before: pd.DataFrame, lake: Lake) -> Twins:
    """All pairs of twins among the sealed rows; of pairs that `before` already held together, what it says."""
    signatures = dict(zip(sealed["key"], sealed["signature"], strict=True))
    known = {key for key in before.loc[before["status"] == "sealed", "key"] if key in signatures}
    old = {
        (key, other)
        for key, others in zip(before["key"], before["twins"], strict=True)
        for other in others
        if key < other and key in known and other in known
    }
    new = signatures.keys() - known
    return old | (find_twins(lake, signatures, new) if new else set())


def _listed_splits(frame: pd.DataFrame, recipe: Recipe) -> list[Split]:
    return listed_splits(list(frame["source"]), list(frame["patient"]), list(frame["declared"]), recipe.split)


def _key(recipe: Recipe, number: int) -> str:
    return f"{manifest_folder(recipe)}/{number:08d}.parquet"


def _frame(rows: Sequence[ManifestRow]) -> pd.DataFrame:
    table = pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], SCHEMA)
    return _to_pandas(table)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    there = set(table.column_names)  # an older meddiff wrote fewer
    columns = {name: table.column(name).to_pylist() if name in there else [""] * len(table) for name in COLUMNS}
    for name in LISTS:
        columns[name] = [tuple(value) for value in columns[name]]
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def _encode(frame: pd.DataFrame) -> bytes:
    table = pa.Table.from_pydict({name: list(frame[name]) for name in COLUMNS}, SCHEMA)
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _decode(data: bytes, where: str) -> pd.DataFrame:
    table = pq.read_table(io.BytesIO(data))
    number = int((table.schema.metadata or {}).get(FORMAT_KEY, b"0"))
    if number > FORMAT:
        raise UserError(f"{where} has format {number}; this meddiff reads up to {FORMAT}: install a newer one")
    return _to_pandas(table)
