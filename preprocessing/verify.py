"""Verifying: every stored byte against its case's seal.

A case that is not what was sealed loses its seal, so that no reader opens it, and becomes a quarantined row; the next
ingest of its source writes it again, with the same bytes.
"""

from collections import defaultdict
from collections.abc import Callable

from infra.errors import UserError
from infra.lake import Lake
from preprocessing.case import CaseError
from preprocessing.convert import UNEXPECTED
from preprocessing.manifest import ManifestRow, commit, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.seal import damaged_objects, read_seal, seal_key

Progress = Callable[[int, int], None]
KEPT = ("source", "case", "patient", "licence", "origin", "version", "root", "declared")


def verify(lake: Lake, recipe: Recipe, on_progress: Progress | None = None) -> list[ManifestRow]:
    """Read every sealed case of the newest manifest; quarantine the damaged ones, whose rows come back.

    Args:
        lake: whose.
        recipe: which.
        on_progress: called with cases done and cases in all.

    Raises:
        UserError: a case was sealed by a newer meddiff; nothing is changed.
    """
    rows = list(read_manifest(lake, recipe).by_case().values())
    sealed = [row for row in rows if row.status == "sealed"]
    damaged: dict[str, ManifestRow] = {}
    for done, row in enumerate(sealed, 1):
        if reason := _damage(lake, row):
            damaged[row.key] = _quarantined(row, reason)
        if on_progress:
            on_progress(done, len(sealed))
    for key in damaged:
        lake.delete(seal_key(key))
    touched = {row.source for row in damaged.values()}
    by_source: dict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        if row.source in touched:
            by_source[row.source].append(damaged.get(row.key, row))
    if by_source:
        commit(lake, recipe, by_source)
    return list(damaged.values())


def _damage(lake: Lake, row: ManifestRow) -> str:
    """What is wrong with a stored case, "" where nothing is."""
    try:
        seal = read_seal(lake, row.key)
    except CaseError as error:
        raise UserError(str(error)) from error
    if seal is None or seal.digest != row.seal:
        return "its seal is gone or damaged"
    names = damaged_objects(lake, row.key)
    return f"{len(names)} stored objects are missing or damaged, {names[0]} first" if names else ""


def _quarantined(row: ManifestRow, reason: str) -> ManifestRow:
    kept = {name: getattr(row, name) for name in KEPT}
    return ManifestRow(status="quarantined", reason=f"{UNEXPECTED}{reason}; ingest its source again", **kept)
