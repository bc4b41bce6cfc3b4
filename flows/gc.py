"""Collecting garbage: what may go of a lake, reported, and deleted where that is asked for."""

import logging
from typing import Any

from prefect import flow

from flows.artifacts import publish_table, stage_progress
from flows.retention import GcParams, by_kind, delete_garbage, find_garbage
from infra.lake import open_lake
from infra.settings import load_settings

logger = logging.getLogger(__name__)
DEFAULTS = GcParams()
SHOWN = 200  # things in the table of Prefect's page


@flow(name="gc")
def gc(params: GcParams = DEFAULTS) -> dict[str, Any]:
    """Report what may go of the lake, what it takes and costs; delete it only if the parameters say so."""
    settings, cutoff = load_settings(), params.cutoff()
    lake = open_lake(params.lake or settings.lake_url, create=False)
    found = find_garbage(lake, params, settings, cutoff)
    stayed = []
    if params.delete:
        report = stage_progress("gc", "things")
        stayed = delete_garbage(lake, found, cutoff, lambda done, total: report(done, total, ""))
    size = sum(thing.bytes for thing in found)
    what = "deleted" if params.delete else "could go"
    publish_table("gc", by_kind(found, params), f"{what}: {len(found)} things, {size} bytes")
    rows = [{"kind": one.kind, "key": one.key, "why": one.why, "bytes": one.bytes} for one in found[:SHOWN]]
    publish_table("gc things", rows, f"{what}; the first {len(rows)} of {len(found)}")
    logger.info("%s: %d things, %d bytes; %d of them stayed", what, len(found), size, len(stayed))
    return {"things": len(found), "bytes": size, "stayed": len(stayed), "USD a month": params.price(size)}
