"""The manifest: the table of sealed and quarantined cases; its fingerprint is the version of the data.

Manifests are numbered Parquet files that are only ever added. A commit replaces all rows of the sources it names (of
the folders it names, where a source reads several) and keeps the others; of two commits at once the loser reads again,
merges and takes the next number.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO

import pandas as pd

from infra.errors import UserError
from infra.fingerprint import fingerprint
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.decisions import (
    CaseId,
    case_ids,
    decided,
    listed_names,
    listed_splits_of,
    once_excluded,
    with_names,
)
from preprocessing.duplicates import Twins, find_twins
from preprocessing.manifest_table import COLUMNS, READ, ManifestRow, decode, encode, read_notes, to_frame
from preprocessing.origins import absolute_origin, known_roots
from preprocessing.recipe import Recipe

FINGERPRINT_KEY = b"meddiff.fingerprint"
LEFT_KEY = b"meddiff.left"
LISTED = ("source", "patient", "declared")  # what the split of a case is, before duplicates count
PLANNED = ("source", "case", "status", "reason", "version", "root", "declared")  # what tells whether a case changed
IDENTITY = ("source", "case", "input", "seal", "status", "reason", "cluster", "split")
SHOWN = ("source", "case", "patient", "status", "reason", "url", "origin",
         "regions", "anatomy", "lesion", "licence", "cluster", "split")  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The rows, sorted by source and case, and the manifest's number (0 = there is none yet).

    `left` are cases that were excluded from training when they were withdrawn; they are again if they come back.
    """

    rows: pd.DataFrame
    number: int = 0
    paper_like: bool = False
    left: frozenset[CaseId] = frozenset()

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
        """The rows as models, by source and case; columns that were not read are empty."""
        columns = [name for name in COLUMNS if name in self.rows]
        rows = (ManifestRow.model_validate(values) for values in self.rows[columns].to_dict("records"))
        return {(row.source, row.case): row for row in rows}


def manifest_folder(recipe: Recipe) -> str:
    """Where the manifests of a recipe lie in the lake."""
    return f"manifests/{recipe.fingerprint}"


def manifest_numbers(lake: Lake, recipe: Recipe) -> list[int]:
    """The numbers of the manifests of a recipe that are there, ascending."""
    names = lake.list(manifest_folder(recipe))
    return sorted(int(name.rpartition("/")[2].removesuffix(".parquet")) for name in names)


def read_manifest(lake: Lake, recipe: Recipe, number: int | None = None, columns: Collection[str] = READ) -> Manifest:
    """The newest manifest of a recipe, or the one of this number; number 0 and no rows where there is none.

    Only `columns` of the rows are read, by default all but the signatures. A recipe whose split is `paper_like` reads
    the same manifest without exclusions: every row is marked in a column of that name, and the fingerprint is another.

    Raises:
        UserError: there is no manifest of that number, or it was written by a newer meddiff.
    """
    columns = tuple(dict.fromkeys((*columns, *(LISTED if recipe.split.paper_like else ()))))
    if number is None:
        number = max(manifest_numbers(lake, recipe), default=0)
    if number == 0:
        return _as_read(Manifest(to_frame([])[list(columns)]), recipe)
    with _opened(lake, recipe, number) as stream:
        rows, notes = decode(stream, lake.url_of(_key(recipe, number)), columns)
    left = frozenset((source, root, case) for source, root, case in json.loads(notes.get(LEFT_KEY, b"[]")))
    return _as_read(Manifest(rows, number, left=left), recipe)


def read_fingerprint(lake: Lake, recipe: Recipe, number: int) -> str:
    """The fingerprint of one manifest, for which none of its rows is read unless an older meddiff wrote it."""
    if not recipe.split.paper_like:
        with _opened(lake, recipe, number) as stream:
            if noted := read_notes(stream).get(FINGERPRINT_KEY):
                return noted.decode()
    return read_manifest(lake, recipe, number, IDENTITY).fingerprint


def noted_fingerprint(lake: Lake, key: str) -> str:
    """The fingerprint of the manifest at a key, whatever its recipe."""
    with lake.open(key) as stream:
        if noted := read_notes(stream).get(FINGERPRINT_KEY):
            return noted.decode()
    return Manifest(read_table(lake, key, IDENTITY)).fingerprint


def read_table(lake: Lake, key: str, columns: Collection[str]) -> pd.DataFrame:
    """These columns of the manifest at a key, whatever its recipe.

    Raises:
        UserError: it was written by a newer meddiff.
    """
    with lake.open(key) as stream:
        return decode(stream, lake.url_of(key), columns)[0]


def _opened(lake: Lake, recipe: Recipe, number: int) -> BinaryIO:
    try:
        return lake.open(_key(recipe, number))
    except FileNotFoundError:
        raise UserError(f"{lake.url} has no manifest {number} of recipe {recipe.name}") from None


def _as_read(manifest: Manifest, recipe: Recipe) -> Manifest:
    if not recipe.split.paper_like:
        return manifest
    rows = manifest.rows.assign(split=listed_splits_of(manifest.rows, recipe), paper_like=True)
    return Manifest(rows, manifest.number, paper_like=True, left=manifest.left)


@dataclass(frozen=True)
class Kept:
    """Cases whose rows a commit leaves as the newest manifest has them.

    `changes` says by listed id what has to be put into a row nevertheless, mostly nothing; manifest `number` has a row
    of every one of them, which counts where another commit withdrew it in the meantime.
    """

    changes: Mapping[str, Mapping[str, Any]]
    number: int


def commit(
    lake: Lake,
    recipe: Recipe,
    rows: Mapping[str, Sequence[ManifestRow]],
    roots: Collection[str] | None = None,
    kept: Kept | None = None,
) -> Manifest:
    """A new manifest in which `rows` are all the rows of their sources; the newest one where nothing would change.

    With `roots`, they are only all the rows of these folders of their sources; `kept` ones stay beside them. Names,
    clusters and splits are decided anew over all rows.
    """
    recipe = recipe.stored
    given = to_frame([row for some in rows.values() for row in some])
    while True:
        newest = read_manifest(lake, recipe, columns=COLUMNS)
        replaced = _are_of(newest.rows, rows, roots)
        parts = [newest.rows[~replaced], _with_signatures(given, newest.rows)]
        if kept:
            seen = newest if kept.number == newest.number else read_manifest(lake, recipe, kept.number, COLUMNS)
            parts.append(_kept_rows([m.rows[_are_of(m.rows, rows, roots)] for m in (newest, seen)], kept))
        manifest = _decided(pd.concat(parts), newest, lake, recipe)
        if newest.number and manifest.rows.equals(newest.rows):
            return _as_shown(newest)
        try:
            lake.create(_key(recipe, manifest.number), _encoded(manifest))
        except FileExistsError:
            continue
        return _as_shown(manifest)


def _encoded(manifest: Manifest) -> bytes:
    notes = {FINGERPRINT_KEY: manifest.fingerprint, LEFT_KEY: json.dumps(sorted(manifest.left))}
    return encode(manifest.rows, notes)


def _as_shown(manifest: Manifest) -> Manifest:
    """The manifest as `read_manifest` gives it."""
    return Manifest(manifest.rows[list(READ)], manifest.number, left=manifest.left)


def _decided(rows: pd.DataFrame, before: Manifest, lake: Lake, recipe: Recipe) -> Manifest:
    once = once_excluded(before.rows, before.left)
    rows = with_names(rows)
    twins = _twins(rows[rows["status"] == "sealed"], before.rows, lake)
    left = once.difference(case_ids(rows))
    return Manifest(decided(rows, twins, once, recipe), before.number + 1, left=left)


def _are_of(rows: pd.DataFrame, sources: Collection[str], roots: Collection[str] | None) -> "pd.Series[bool]":
    """Whether each row is one of these sources', and of these folders'."""
    found = rows["source"].isin(list(sources))
    return found if roots is None else found & rows["root"].isin(list(roots))


def _kept_rows(tables: Sequence[pd.DataFrame], kept: Kept) -> pd.DataFrame:
    """The kept cases' rows under their listed names, each from the first table that has it."""
    listed = [table.assign(case=pd.Series(listed_names(table), table.index, dtype=object)) for table in tables]
    rows = pd.concat(listed).drop_duplicates(["source", "root", "case"])
    rows = rows[rows["case"].isin(list(kept.changes))].reset_index(drop=True)
    for number, case in enumerate(rows["case"]):
        for column, value in kept.changes[case].items():
            rows.at[number, column] = value
    return rows


def _with_signatures(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    there = dict(zip(known["key"], known["signature"], strict=True))
    texts = [text or there.get(key, "") for key, text in zip(rows["key"], rows["signature"], strict=True)]
    return rows.assign(signature=pd.Series(texts, index=rows.index, dtype=object))


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


def _key(recipe: Recipe, number: int) -> str:
    return f"{manifest_folder(recipe)}/{number:08d}.parquet"
