"""Ingesting: list the sources, convert what changed in parallel, commit the manifest.

Where a listing shows no change, nothing is read, no worker starts and nothing is committed. A case whose worker dies is
quarantined like any other bad case, and tried again by the next ingest.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from infra.cluster import fan_out, open_cluster
from infra.errors import UserError
from infra.fetch import Progress as Transfer
from infra.lake import Lake
from infra.meter import metered
from infra.settings import Settings, load_settings
from infra.spent import note_spent
from preprocessing.backfill import asked_for
from preprocessing.case import Case
from preprocessing.changes import find_changes, known_cases, root_of, without_namesakes
from preprocessing.convert import UNEXPECTED, convert_case, quarantined_row
from preprocessing.identity import IdentifiedSource, prepared, remember_identities, silenced
from preprocessing.ingest_counts import Converted, SourceCounts, counts_of, pace_of_cases, spent_on
from preprocessing.manifest import PLANNED, Kept, Manifest, ManifestRow, commit, read_manifest
from preprocessing.origins import remember_root, root_id, source_root
from preprocessing.preview import SHEET_CASES, contact_sheet, preview_key, sheet_key
from preprocessing.recipe import Recipe
from preprocessing.seal import read_seal
from preprocessing.segmenter import require_segmenter
from preprocessing.selection import EVERYTHING, Selection, selected
from preprocessing.sources.base import Source

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int, ManifestRow | None], None]


@dataclass(frozen=True)
class IngestSummary:
    """The manifest after an ingest, and what was done; `quarantined` counts unchanged quarantined cases too."""

    manifest: Manifest
    sources: tuple[SourceCounts, ...]

    @property
    def converted(self) -> int:
        """Cases that were read and converted now."""
        return sum(counts.converted for counts in self.sources)

    @property
    def unchanged(self) -> int:
        """Cases that were left as they are, unread."""
        return sum(counts.unchanged for counts in self.sources)

    @property
    def quarantined(self) -> int:
        """Cases that are refused."""
        return sum(counts.quarantined for counts in self.sources)


def ingest(
    lake: Lake,
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    selection: Selection = EVERYTHING,
    settings: Settings | None = None,
    on_progress: Progress | None = None,
    on_transfer: Transfer | None = None,
) -> IngestSummary:
    """Bring every source's cases into the lake and commit one manifest per source.

    Args:
        lake: where to.
        recipe: how.
        sources: what; each one's rows replace its former ones, for an unnamed folder those of the same folder.
        selection: which of their cases, by number, licence and name, and which of them are converted again.
        settings: where the workers are; the environment's by default.
        on_progress: called with source, cases done, cases in all, and the row of the case just done (None at first).
        on_transfer: called with a file's key, bytes done and in all, while what must be pulled before listing is.

    Raises:
        UserError: a source lists nothing, or the lake cannot be written.
    """
    settings = settings or load_settings()
    recipe = recipe.stored
    counts = []
    with ExitStack() as stack:
        workers = _Workers(stack, settings)
        for given in sources:
            source = prepared(given, lake, settings)
            counts.append(_ingest_source(lake, recipe, source, selection, workers, on_progress, on_transfer))
            source.finish(lake)
    return IngestSummary(read_manifest(lake, recipe), tuple(counts))


def _replaced_roots(source: Source) -> tuple[str, ...] | None:
    """The folders whose rows a commit replaces: also those of the same folder before its names were hidden."""
    if not (root := root_of(source)):
        return None
    return (root, root_id(source.folder)) if isinstance(source, IdentifiedSource) else (root,)


def _remember(source: Source, listed: Sequence[Case], settings: Settings) -> None:
    if isinstance(source, IdentifiedSource):
        remember_identities(source, listed, settings)
    elif root := source_root(source):
        remember_root(root, settings)


class _Workers:
    """The cluster of one ingest, started when the first case needs it."""

    def __init__(self, stack: ExitStack, settings: Settings) -> None:
        self.stack = stack
        self.settings = settings

    @cached_property
    def client(self) -> Any:
        """The Dask client."""
        return self.stack.enter_context(open_cluster(self.settings.dask_address, self.settings.workers))


def _ingest_source(
    lake: Lake,
    recipe: Recipe,
    source: Source,
    selection: Selection,
    workers: _Workers,
    on_progress: Progress | None,
    on_transfer: Transfer | None,
) -> SourceCounts:
    name = source.info.name
    selection.require(source.info, lake)
    before = read_manifest(lake, recipe, columns=(*PLANNED, "key") if selection.since else PLANNED)
    known = known_cases(before, source)
    with metered() as traffic:
        listed = source.cases(lake, on_transfer)
    cases = selected(without_namesakes(listed), known, selection, lake)
    if not cases:
        raise UserError(f"source {name} lists no case: nothing to ingest")
    changes = asked_for(find_changes(known, cases, source), selection, before, source, lake)
    require_segmenter(recipe, changes.pending, workers.settings)
    report = on_progress or (lambda *_: None)
    done, total = len(changes.kept), len(changes.kept) + len(changes.pending)
    report(name, done, total, None)
    results = []
    for result in _convert_all(lake, recipe, source, changes.pending, workers, selection.stale_before()):
        results.append(result)
        report(name, done + len(results), total, result.row)
    _remember(source, listed, workers.settings)
    if changes:
        kept = Kept({case: changes.renoted.get(case, {}) for case in changes.kept}, before.number)
        rows = {name: [result.row for result in results]}
        _write_sheet(lake, recipe, name, commit(lake, recipe, rows, _replaced_roots(source), kept))
        note_spent(lake, "cases", pace_of_cases(recipe, name), spent_on(results))
    return counts_of(name, changes, results).replace(received=traffic.received + sum(r.received for r in results))


def _convert_all(
    lake: Lake,
    recipe: Recipe,
    source: Source,
    cases: list[Case],
    workers: _Workers,
    stale_before: datetime | None,
) -> Iterator[Converted]:
    convert = partial(_convert, source=source, recipe=recipe, lake=lake, stale_before=stale_before)
    healthy = []
    for case in cases:
        if case.problem:
            yield Converted(_noted(quarantined_row(case, lake, source, case.problem), case, source))
        else:
            healthy.append(case)
    if not healthy:
        return
    for case, result in fan_out(convert, healthy, client=workers.client):
        if isinstance(result, UserError):
            raise result
        if isinstance(result, Exception):
            result = Converted(quarantined_row(case, lake, source, _worker_reason(result)))
            logger.error("%s/%s: %s", case.source, case.id, _noted(result.row, case, source).reason)
        yield replace(result, row=_noted(result.row, case, source))


def _convert(case: Case, source: Source, recipe: Recipe, lake: Lake, stale_before: datetime | None) -> Converted:
    began, wording, quiet = time.perf_counter(), str, nullcontext()
    if isinstance(source, IdentifiedSource):
        wording, quiet = partial(source.finding, case=case), silenced()
    with metered() as traffic, quiet:
        row = convert_case(case, source, recipe, lake, wording, stale_before)
    seal = read_seal(lake, row.key) if row.key else None
    sizes = [size for size, _ in seal.objects.values()] if seal else []
    return Converted(row, traffic.received, sum(sizes), len(sizes), time.perf_counter() - began)


def _noted(row: ManifestRow, case: Case, source: Source) -> ManifestRow:
    """The row with what only the source knows: its folder, the declared split, and hashes in place of names."""
    changes: dict[str, object] = {"root": root_of(source), "declared": case.split, "case": case.id}
    if isinstance(source, IdentifiedSource):
        reason = source.reason(row.reason, case) if row.reason else row.reason
        changes |= {"origin": source.origin(case), "reason": reason}
    return row.replace(**changes)


def _worker_reason(error: Exception) -> str:
    if type(error).__name__ == "KilledWorker":
        return f"{UNEXPECTED}the worker process died while converting it, probably for want of memory"
    return f"{UNEXPECTED}{type(error).__name__}: {error}"


def _write_sheet(lake: Lake, recipe: Recipe, source: str, manifest: Manifest) -> None:
    pictures, sealed = [], manifest.sealed(source=source)
    for row in Manifest(sealed[:SHEET_CASES]).by_case().values():
        try:
            pictures.append((row.case, lake.read(preview_key(recipe, source, row.listed, row.input))))
        except FileNotFoundError:
            logger.info("no preview of %s/%s", source, row.case)
    if pictures:
        lake.write(sheet_key(recipe, source), contact_sheet(source, pictures, len(sealed)))
