"""Ingest: from the sources' files to sealed cases and a new manifest, one Prefect task per source."""

import logging
from collections import Counter

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.artifacts import announce_manifest, publish_sheet, publish_table, stage_progress
from flows.params import SourceSpec, StageParams, demo_phantom
from flows.progress import tell
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import load_settings
from preprocessing.ingest import IngestSummary, ingest
from preprocessing.manifest import Manifest, ManifestRow, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.selection import EVERYTHING, Selection

logger = logging.getLogger(__name__)


class IngestParams(StageParams):
    """What to ingest; with nothing said, the built-in phantom at the demo's size."""

    sources: tuple[SourceSpec, ...] = Field(
        (demo_phantom(),), min_length=1, description="what to pull and convert", json_schema_extra={"position": 2}
    )
    selection: Selection = Field(
        EVERYTHING, description="which of their cases, by number and licence", json_schema_extra={"position": 3}
    )


DEFAULTS = IngestParams()


@task(name="ingest-source", task_run_name="ingest {spec.name}", cache_policy=NO_CACHE)
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


def ingest_sources(params: IngestParams) -> Manifest:
    """Ingest every source, one after the other; announce the manifest if its fingerprint is new.

    Raises:
        UserError: a source could not be ingested; the others were.
    """
    lake, recipe = open_lake(params.lake or load_settings().lake_url), params.full_recipe
    before = read_manifest(lake, recipe)
    failures = []
    for spec in params.sources:
        try:
            spec.require_hiding()
            ingest_source(spec, lake.url, recipe, params.selection)
        except UserError as error:
            failures.append(f"{spec.name}: {error}")
    manifest = read_manifest(lake, recipe)
    if manifest.fingerprint != before.fingerprint:
        announce_manifest(lake, recipe.name, manifest.number, manifest.fingerprint)
    table = [
        {**row, "contact sheet": publish_sheet(lake, recipe, str(row["source"]))} for row in source_counts(manifest)
    ]
    publish_table("ingest sources", table, f"cases per source, recipe {recipe.name}")
    if failures:
        raise UserError("; ".join(failures))
    return manifest


def source_counts(manifest: Manifest) -> list[dict[str, str | int]]:
    """One row per source of the manifest: cases by status and by split."""
    table = []
    for source, rows in manifest.rows.groupby("source"):
        status = Counter(rows["status"])
        split = Counter(rows.loc[rows["status"] == "sealed", "split"])
        counts = {name: split[name] for name in ("train", "val", "test", "excluded")}
        table.append(
            {"source": str(source), "sealed": status["sealed"], "quarantined": status["quarantined"], **counts}
        )
    return table


@flow(name="ingest-ct")
def ingest_ct(params: IngestParams = DEFAULTS) -> dict[str, str | int]:
    """Pull and convert the sources into the lake; what is unchanged is not read."""
    manifest = ingest_sources(params)
    return {"manifest": manifest.number, "fingerprint": manifest.fingerprint, "cases": len(manifest.rows)}
