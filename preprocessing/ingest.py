"""Ingesting: list the sources, convert what changed in parallel, commit the manifest.

Whether a case changed is decided from the manifest's rows alone: the same version token means that nothing of it is
read. A case whose worker dies is quarantined like any other bad case, and tried again by the next ingest.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from infra.cluster import fan_out, open_cluster
from infra.config import Config
from infra.errors import UserError
from infra.fetch import Progress as Transfer
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.case import Case
from preprocessing.convert import UNEXPECTED, convert_case, quarantined_row
from preprocessing.identity import IdentifiedSource, prepared, remember_identities, silenced
from preprocessing.manifest import Manifest, ManifestRow, commit, read_manifest
from preprocessing.origins import remember_root, root_id, several_roots, source_root
from preprocessing.preview import contact_sheet, preview_key, sheet_key
from preprocessing.recipe import Recipe
from preprocessing.segmenter import require_segmenter
from preprocessing.selection import EVERYTHING, Selection, selected
from preprocessing.sources.base import Source

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int, ManifestRow | None], None]


class SourceCounts(Config):
    """What became of one source's cases."""

    source: str
    listed: int = 0
    converted: int = 0
    unchanged: int = 0
    quarantined: int = 0


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
        selection: which of their cases, by number and licence.
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
            known = rows_by_id(read_manifest(lake, recipe), source)
            rows, done = _ingest_source(lake, recipe, source, known, selection, workers, on_progress, on_transfer)
            _remember(source, settings, lake)
            manifest = commit(lake, recipe, {source.info.name: rows}, _replaced_roots(source))
            source.finish(lake)
            counts.append(done)
            if done.converted:
                _write_sheet(lake, recipe, source.info.name, manifest)
    return IngestSummary(read_manifest(lake, recipe), tuple(counts))


def rows_by_id(manifest: Manifest, source: Source) -> dict[str, ManifestRow]:
    """The manifest's rows of a source, of its own folder where it has several, by the id that the source lists."""
    rows = manifest.rows[manifest.rows["source"] == source.info.name]
    if root := _root(source):
        rows = rows[rows["root"] == root]
    found = Manifest(rows).by_case().values()
    return {row.listed: row for row in found}


def _root(source: Source) -> str:
    """The id of the folder in the rows of a source that may have several; "" for every other source."""
    if isinstance(source, IdentifiedSource):
        return source.root if several_roots(source.source) else ""
    folder = source_root(source)
    return root_id(folder) if folder and several_roots(source) else ""


def _replaced_roots(source: Source) -> tuple[str, ...] | None:
    """The folders whose rows a commit replaces: also those of the same folder before its names were hidden."""
    if not (root := _root(source)):
        return None
    return (root, root_id(source.folder)) if isinstance(source, IdentifiedSource) else (root,)


def _remember(source: Source, settings: Settings, lake: Lake) -> None:
    if isinstance(source, IdentifiedSource):
        remember_identities(source, source.cases(lake), settings)
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
    known: dict[str, ManifestRow],
    selection: Selection,
    workers: _Workers,
    on_progress: Progress | None,
    on_transfer: Transfer | None,
) -> tuple[list[ManifestRow], SourceCounts]:
    name = source.info.name
    selection.require(source.info, lake)
    cases = selected(without_namesakes(source.cases(lake, on_transfer)), known, selection, lake)
    if not cases:
        raise UserError(f"source {name} lists no case: nothing to ingest")
    looked_up = [(case, _unchanged_row(case, known)) for case in cases]
    rows = [_noted(row, case, source) for case, row in looked_up if row]
    unchanged = len(rows)
    pending = [case for case, row in looked_up if row is None]
    require_segmenter(recipe, pending, workers.settings)
    report = on_progress or (lambda *_: None)
    report(name, unchanged, len(cases), None)
    for row in _convert_all(lake, recipe, source, pending, workers):
        rows.append(row)
        report(name, len(rows), len(cases), row)
    refused = Counter(row.status for row in rows)["quarantined"]
    counts = SourceCounts(
        source=name, listed=len(cases), converted=len(pending), unchanged=unchanged, quarantined=refused
    )
    return rows, counts


def _convert_all(
    lake: Lake, recipe: Recipe, source: Source, cases: list[Case], workers: _Workers
) -> Iterator[ManifestRow]:
    convert = partial(_convert, source=source, recipe=recipe, lake=lake)
    healthy = []
    for case in cases:
        if case.problem:
            yield _noted(quarantined_row(case, lake, source, case.problem), case, source)
        else:
            healthy.append(case)
    if not healthy:
        return
    for case, result in fan_out(convert, healthy, client=workers.client):
        if isinstance(result, UserError):
            raise result
        if isinstance(result, Exception):
            result = quarantined_row(case, lake, source, _worker_reason(result))
            logger.error("%s/%s: %s", case.source, case.id, _noted(result, case, source).reason)
        yield _noted(result, case, source)


def _convert(case: Case, source: Source, recipe: Recipe, lake: Lake) -> ManifestRow:
    if isinstance(source, IdentifiedSource):
        with silenced():
            return convert_case(case, source, recipe, lake, partial(source.finding, case=case))
    return convert_case(case, source, recipe, lake)


def _noted(row: ManifestRow, case: Case, source: Source) -> ManifestRow:
    """The row with what only the source knows: its folder, the declared split, and hashes in place of names."""
    changes: dict[str, object] = {"root": _root(source), "declared": case.split, "case": case.id}
    if isinstance(source, IdentifiedSource):
        reason = source.reason(row.reason, case) if row.reason else row.reason
        changes |= {"origin": source.origin(case), "reason": reason}
    return row.replace(**changes)


def _worker_reason(error: Exception) -> str:
    if type(error).__name__ == "KilledWorker":
        return f"{UNEXPECTED}the worker process died while converting it, probably for want of memory"
    return f"{UNEXPECTED}{type(error).__name__}: {error}"


def is_unchanged(case: Case, row: ManifestRow) -> bool:
    """Whether nothing of a listed case has to be read, given its row: same version, and not refused by accident."""
    if not case.version or row.version != case.version:
        return False
    if row.status == "sealed":
        return True
    reason = row.reason or ""
    return not reason.startswith(UNEXPECTED) and reason == (case.problem or reason)


def _unchanged_row(case: Case, known: dict[str, ManifestRow]) -> ManifestRow | None:
    row = known.get(case.id)
    return row if row and is_unchanged(case, row) else None


def without_namesakes(cases: Sequence[Case]) -> list[Case]:
    """Every case under a name of its own; a second one of a name is kept as a problem, never dropped."""
    seen: Counter[str] = Counter()
    out = []
    for case in cases:
        seen[case.id] += 1
        if seen[case.id] > 1:
            problem = f"{seen[case.id]} cases of source {case.source} are called {case.id}; rename one"
            case = case.replace(id=f"{case.id}#{seen[case.id]}", problem=problem)
        out.append(case)
    return out


def _write_sheet(lake: Lake, recipe: Recipe, source: str, manifest: Manifest) -> None:
    pictures = []
    for row in Manifest(manifest.sealed(source=source)).by_case().values():
        try:
            pictures.append((row.case, lake.read(preview_key(recipe, source, row.listed, row.input))))
        except FileNotFoundError:
            logger.info("no preview of %s/%s", source, row.case)
    if pictures:
        lake.write(sheet_key(recipe, source), contact_sheet(source, pictures))
