"""Ingest: from the sources' files to sealed cases and a new manifest, one Prefect task per source."""

import logging
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from prefect import State, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from pydantic import Field

from flows.artifacts import announce_manifest, publish_sheet, publish_table, stage_progress
from flows.params import SourceSpec, StageParams, demo_phantom
from flows.progress import tell
from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.remote import TransientError
from infra.settings import load_settings
from preprocessing.ingest import IngestSummary, ingest
from preprocessing.ingest_counts import SourceCounts
from preprocessing.manifest import IDENTITY, Manifest, ManifestRow, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.selection import EVERYTHING, Selection

logger = logging.getLogger(__name__)
RETRY_DELAYS_S = [10.0, 60.0, 300.0]
RETRY_JITTER = 0.5
REASONS = 5  # shown in a table


class IngestParams(StageParams):
    """What to ingest; with nothing said, the built-in phantom at the demo's size."""

    sources: tuple[SourceSpec, ...] = Field(
        (demo_phantom(),), min_length=1, description="what to pull and convert", json_schema_extra={"position": 2}
    )
    selection: Selection = Field(
        EVERYTHING,
        description="which of their cases, by number, licence and name, and which of them are converted again",
        json_schema_extra={"position": 3},
    )


DEFAULTS = IngestParams()


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failure is worth another attempt: not where a sentence tells the user what to mend."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransientError) or not isinstance(error, UserError)


@task(
    name="ingest-source",
    task_run_name="ingest {spec.name}",
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=RETRY_JITTER,
    retry_condition_fn=may_pass,
)
def ingest_source(spec: SourceSpec, lake_url: str, recipe: Recipe, selection: Selection = EVERYTHING) -> IngestSummary:
    """List, fetch, convert and commit the cases of one source; quarantined ones are rows, not errors."""
    report = stage_progress(f"ingest {spec.name}", "cases")
    quarantined = 0

    def on_progress(source: str, done: int, total: int, row: ManifestRow | None) -> None:
        nonlocal quarantined
        if row is not None and row.status == "quarantined":
            quarantined += 1
            logger.warning("%s/%s is quarantined: %s", source, row.case, row.reason)
        report(done, total, f"{quarantined} quarantined" if quarantined else "")

    settings = load_settings()
    lake = open_lake(lake_url or settings.lake_url)
    return ingest(
        lake,
        recipe,
        [spec.make()],
        selection=selection,
        settings=settings,
        on_progress=on_progress,
        on_transfer=lambda key, done, total: tell(f"pull {key.rpartition('/')[2]}", done, total or done),
    )


def ingest_sources(params: IngestParams) -> IngestSummary:
    """Ingest every source, one after the other; announce the manifest if its fingerprint is new.

    Raises:
        UserError: a source could not be ingested; the others were. So with any other exception.
    """
    lake, recipe = open_lake(params.lake or load_settings().lake_url), params.full_recipe
    failures: dict[str, Exception] = {}
    counts: list[SourceCounts] = []
    with announced(lake, recipe):
        for spec in params.sources:
            try:
                spec.require_hiding()
                counts += ingest_source(spec, lake.url, recipe, params.selection).sources
            except Exception as error:  # noqa: BLE001 - one source must not keep the others waiting for its repair
                failures[spec.name] = error
    splits = split_counts(read_manifest(lake, recipe, columns=IDENTITY))
    table = [
        {**table_row(row), **splits[row.source], "contact sheet": publish_sheet(lake, recipe, row.source)}
        for row in counts
    ]
    publish_table("ingest sources", table, f"cases per source, recipe {recipe.name}")
    if strange := next((error for error in failures.values() if not isinstance(error, UserError)), None):
        raise strange
    if failures:
        raise UserError("; ".join(f"{name}: {error}" for name, error in failures.items()))
    return IngestSummary(read_manifest(lake, recipe), tuple(counts))


@contextmanager
def announced(lake: Lake, recipe: Recipe) -> Generator[None]:
    """Announce the lake's manifest after the block, however it ends, if its fingerprint is another than before."""
    before = read_manifest(lake, recipe, columns=IDENTITY)
    try:
        yield
    finally:
        after = read_manifest(lake, recipe, columns=IDENTITY)
        if after.fingerprint != before.fingerprint:
            announce_manifest(lake, recipe, after.number, after.fingerprint)


def table_row(counts: SourceCounts) -> dict[str, str | int]:
    """A source's counts as the table in Prefect's pages shows them."""
    shown = [f"{count} x {reason}" for reason, count in list(counts.reasons.items())[:REASONS]]
    more = len(counts.reasons) - len(shown)
    return {
        "source": counts.source,
        "listed": counts.listed,
        "sealed": counts.sealed,
        "converted": counts.converted,
        "unchanged": counts.unchanged,
        "quarantined": counts.quarantined,
        "reasons": "; ".join([*shown, *([f"{more} more reasons"] if more else [])]),
        "withdrawn": counts.withdrawn,
        "bytes received": counts.received,
        "bytes stored": counts.stored,
    }


def split_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """By source, how many of its sealed cases are in which split."""
    counts = {}
    for source, rows in manifest.rows.groupby("source"):
        split = Counter(rows.loc[rows["status"] == "sealed", "split"])
        counts[str(source)] = {name: split[name] for name in ("train", "val", "test", "excluded")}
    return counts


@flow(name="ingest-ct")
def ingest_ct(params: IngestParams = DEFAULTS) -> dict[str, Any]:
    """Pull and convert the sources into the lake; what is unchanged is not read."""
    done = ingest_sources(params)
    return {
        "manifest": done.manifest.number,
        "fingerprint": done.manifest.fingerprint,
        "cases": len(done.manifest.rows),
        "sources": [counts.model_dump(mode="json") for counts in done.sources],
    }
