"""Backfill: of what a listing changes only the cases that are asked for, and unchanged ones that are converted again.

When a case was converted is the time at which its store's last object was written, by the clock of the lake's storage.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from posixpath import commonpath, dirname

from infra.errors import UserError
from infra.lake import Lake
from preprocessing.changes import Changes, root_of, rows_of
from preprocessing.conversions import ROOT
from preprocessing.decisions import listed_names, suffix
from preprocessing.manifest import Manifest
from preprocessing.selection import Selection
from preprocessing.sources.base import Source


def asked_for(found: Changes, selection: Selection, manifest: Manifest, source: Source, lake: Lake) -> Changes:
    """What an ingest has to do of the changes that were found, and what it converts again.

    Where `since` is asked for, the manifest's rows must have their keys.

    Raises:
        UserError: a case that is asked for is not listed, or `since` is in the future.
    """
    if selection.only:
        names = {name.removesuffix(suffix(root_of(source) or "")) for name in selection.only}
        found = _only(found, names, source.info.name)
    before = selection.stale_before()
    if before is None:
        return found
    written = {} if selection.force else _written(lake, manifest, source, {case.id for case in found.unchanged})
    again = {case.id for case in found.unchanged if selection.force or _is_stale(written.get(case.id), before)}
    if selection.only:
        again &= names
    return replace(
        found,
        unchanged=[case for case in found.unchanged if case.id not in again],
        again=[case for case in found.unchanged if case.id in again],
        renoted=_of(found.renoted, found.renoted.keys() - again),
    )


def _only(found: Changes, names: Collection[str], source: str) -> Changes:
    listed = {case.id for case in (*found.unchanged, *found.changed, *found.new)}
    if missing := sorted(set(names) - listed):
        raise UserError(f"source {source} lists no case {missing[0]}; `meddiff cases` prints the ids of those it has")
    return replace(
        found,
        changed=[case for case in found.changed if case.id in names],
        new=[case for case in found.new if case.id in names],
        withdrawn=[],
        renoted=_of(found.renoted, names),
        left=[*(case.id for case in found.changed if case.id not in names), *found.withdrawn],
    )


def _of(renoted: Mapping[str, dict[str, str]], names: Collection[str]) -> dict[str, dict[str, str]]:
    return {case: columns for case, columns in renoted.items() if case in names}


def _is_stale(written: datetime | None, before: datetime) -> bool:
    return written is None or written < before


def _written(lake: Lake, manifest: Manifest, source: Source, names: Collection[str]) -> dict[str, datetime]:
    """When these cases were converted, by id; quarantined ones never were."""
    rows = rows_of(manifest, source)
    keys = {name: key for name, key in zip(listed_names(rows), rows["key"], strict=True) if key and name in names}
    if not keys:
        return {}
    roots = {f"{key}/{ROOT}": name for name, key in keys.items()}
    found = lake.objects(commonpath([dirname(key) for key in keys.values()]))
    return {roots[one.key]: one.modified for one in found if one.key in roots}
