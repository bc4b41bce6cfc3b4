"""The verb `diff` of the command: what changed between two data versions."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from flows import terminal
from flows.cli_data import JsonOption, LakeOption, stored_recipe
from flows.params import RecipeName
from flows.session import open_session
from infra.lake import open_lake
from preprocessing.manifest import Manifest
from preprocessing.manifest_diff import KINDS, CaseChange, ManifestDiff, read_diff

Version = Annotated[str, typer.Argument(help="A manifest's number, or at least 4 characters of a fingerprint.")]


def diff(
    before: Version = "",
    after: Version = "",
    lake: LakeOption = "",
    recipe: Annotated[
        RecipeName | None, typer.Option("--recipe", help="Default: paper, or what the lake has instead.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What changed between two data versions; by default the newest one and the one before it."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    found = read_diff(place, stored_recipe(place, recipe), before, after)
    if as_json:
        terminal.print_json(_as_json(found))
        return
    out = terminal.out()
    out.print(f"{_named(found.before)} -> {_named(found.after)}")
    counts = found.counts()
    if not counts:
        out.print("no case differs")
        return
    shown = [kind for kind in KINDS if any(kind in of for of in counts.values())]
    totals = [(source, *(of.get(kind, 0) for kind in shown)) for source, of in counts.items()]
    out.print(terminal.table("cases by source", ("source", *shown), totals))
    lines = [
        (change.source, change.case, ", ".join(change.kinds), "; ".join(_details(change))) for change in found.cases
    ]
    out.print(terminal.table(f"{len(lines)} cases differ", ("source", "case", "what", "how"), lines))


def _named(manifest: Manifest) -> str:
    if not manifest.number:
        return "no data"
    return f"manifest {manifest.number} ({manifest.fingerprint}, {len(manifest.rows)} cases)"


def _details(change: CaseChange) -> Iterator[str]:
    """What was and what is, where the kind alone does not say it."""
    was, now = change.before, change.after
    if was is None or now is None:
        there = was or now
        yield (there.reason or there.split) if there else ""
        return
    if {"now quarantined", "another reason"} & set(change.kinds):
        yield now.reason or ""
    if "changed" in change.kinds:
        yield f"input {was.input} -> {now.input}" if was.input != now.input else f"seal {was.seal} -> {now.seal}"
    for name in ("split", "cluster", "case"):
        old, new = getattr(was, name), getattr(now, name)
        if old != new:
            yield f"{name} {old} -> {new}"


def _as_json(found: ManifestDiff) -> dict[str, Any]:
    versions = {"before": found.before, "after": found.after}
    return {
        **{
            name: {"number": one.number, "fingerprint": one.fingerprint, "cases": len(one.rows)}
            for name, one in versions.items()
        },
        "sources": found.counts(),
        "cases": [
            {
                "source": change.source,
                "case": change.case,
                "kinds": list(change.kinds),
                "before": change.before and change.before._asdict(),
                "after": change.after and change.after._asdict(),
            }
            for change in found.cases
        ],
    }


VERBS = (diff,)
