"""Artifacts: what a person sees of a run in Prefect's pages: progress, tables of counts, where results lie."""

import re
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.events import emit_event

from flows.progress import tell
from infra.lake import Lake
from preprocessing.preview import sheet_key
from preprocessing.recipe import Recipe

UPDATE_EVERY_S = 3.0
DATASET_EVENT = "prefect.asset.materialization.succeeded"


def artifact_key(text: str) -> str:
    """Lower-case letters, numbers and dashes only: what Prefect takes for a key."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def stage_progress(stage: str, what: str) -> Callable[[int, int, str], None]:
    """A function of (done, total, note) that moves a progress artifact every few seconds, and tells the terminal."""
    artifact = cast(UUID, create_progress_artifact(0.0, key=artifact_key(stage), description=f"{stage}: {what}"))
    last = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        tell(stage, done, total, note)
        if done < total and time.monotonic() - last < UPDATE_EVERY_S:
            return
        last = time.monotonic()
        update_progress_artifact(artifact, 100.0 * done / max(total, 1), f"{stage}: {done} of {total} {what} {note}")

    return report


def publish_table(name: str, rows: list[dict[str, Any]], description: str) -> None:
    """A table in Prefect's pages; its key keeps the history."""
    create_table_artifact(table=rows, key=artifact_key(name), description=description)


def publish_note(name: str, markdown: str) -> None:
    """A note in Prefect's pages: what a stage did and where its results lie."""
    create_markdown_artifact(markdown=markdown, key=artifact_key(name))


def publish_sheet(lake: Lake, recipe: Recipe, source: str) -> str:
    """A link to a source's contact sheet in Prefect's pages, and its address; "" where the lake has none."""
    key = sheet_key(recipe, source)
    if not lake.exists(key):
        return ""
    link = lake.link(key)
    text = f"contact sheet of {source}, recipe {recipe.name}"
    create_link_artifact(link=link, link_text=text, key=artifact_key(f"contact sheet {source}"), description=text)
    return link


def announce_manifest(lake: Lake, recipe: Recipe, number: int, fingerprint: str) -> None:
    """The event that a new data version exists; whoever trains on this lake can be triggered by it.

    The event's id is the version's: of two runs that announce one version a Prefect server keeps one event.
    """
    asset = f"meddiff://{lake.id}/manifest"
    emit_event(
        event=DATASET_EVENT,
        resource={"prefect.resource.id": asset, "prefect.resource.role": "asset", "meddiff.recipe": recipe.name},
        payload={"fingerprint": fingerprint, "number": number, "recipe": recipe.name, "lake": lake.url},
        id=uuid5(NAMESPACE_URL, f"{asset}/{recipe.fingerprint}/{number}/{fingerprint}"),
    )
