"""The verb `gc` of the command: what may go of a lake, what that frees, and deleting it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flows import terminal
from flows.cli_data import JsonOption, LakeOption
from flows.counts import size
from flows.progress import tell
from flows.retention import GcParams, by_kind, delete_garbage, find_garbage
from flows.session import open_session
from infra.garbage import Garbage
from infra.lake import Lake, open_lake

DEFAULTS = GcParams()
SHOWN = 40
WIDE = 240  # columns of the table at most: a key is not to be broken


def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Really delete; otherwise it is only shown.")] = False,
    grace_days: Annotated[
        float,
        typer.Option(
            min=0, help="What was written or used in the last days stays; longer than any run of yours takes."
        ),
    ] = DEFAULTS.grace_days,
    keep_manifests: Annotated[
        int, typer.Option(min=1, help="Data versions of each recipe that stay, beside those that runs were made on.")
    ] = DEFAULTS.keep_manifests,
    keep_runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Finished runs of each stage that stay, beside the champion, those that MLflow's aliases name, and "
            "all that these are made of; default: all.",
        ),
    ] = DEFAULTS.keep_runs,
    old_recipes: Annotated[
        bool, typer.Option("--old-recipes", help="Also data of recipe versions that are no longer written.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Also pulled files that no kept data version is made of.")] = False,
    price_per_gb_month: Annotated[
        float, typer.Option(min=0, help="USD for 2^30 bytes a month; the default is S3 standard.")
    ] = DEFAULTS.price_per_gb_month,
    lake: LakeOption = "",
    as_json: JsonOption = False,
) -> None:
    """What may be deleted from the lake, what that frees and saves; nothing is, without --delete."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    params = GcParams(
        lake=place.url,
        delete=delete,
        grace_days=grace_days,
        keep_manifests=keep_manifests,
        keep_runs=keep_runs,
        old_recipes=old_recipes,
        raw=raw,
        price_per_gb_month=price_per_gb_month,
    )
    cutoff = params.cutoff()
    found = find_garbage(place, params, settings, cutoff)
    stayed: list[Garbage] = []
    if delete:
        with terminal.bars():
            stayed = delete_garbage(place, found, cutoff, lambda done, total: tell("delete", done, total))
    if as_json:
        terminal.print_json(_as_json(place, params, found, stayed))
    else:
        _show(place, params, found, stayed)


def _show(lake: Lake, params: GcParams, found: Sequence[Garbage], stayed: Sequence[Garbage]) -> None:
    out, now = terminal.out(), datetime.now(UTC)
    out.width = max(out.width, WIDE)
    total = sum(thing.bytes for thing in found)
    if found:
        largest = sorted(found, key=lambda thing: thing.bytes, reverse=True)[:SHOWN]
        shown = [thing for thing in found if thing in largest]
        rows = [(one.kind, size(one.bytes), f"{_days(one, now):.0f} d", one.why, one.key) for one in shown]
        more = f"; the {SHOWN} largest of {len(found)}, --json has all" if len(found) > SHOWN else ""
        out.print(terminal.table(f"what may go{more}", ("kind", "size", "age", "why", "key"), rows))
        sums = [
            (row["kind"], row["things"], row["objects"], size(int(row["bytes"])), row["USD a month"])
            for row in by_kind(found, params)
        ]
        out.print(terminal.table("in all", ("kind", "things", "objects", "size", "USD a month"), sums))
    what = "were deleted" if params.delete else "may go, nothing was deleted: --delete does"
    kept = f"; {len(stayed)} of them stay, they were used meanwhile" if stayed else ""
    things = f"{len(found)} thing{'s' * (len(found) != 1)}, {size(total)}, {params.price(total):.2f} USD a month"
    out.print(f"{things} {what}{kept}; lake {lake.url}")


def _as_json(lake: Lake, params: GcParams, found: Sequence[Garbage], stayed: Sequence[Garbage]) -> dict[str, Any]:
    now, total = datetime.now(UTC), sum(thing.bytes for thing in found)
    return {
        "lake": lake.url,
        "deleted": params.delete,
        "bytes": total,
        "usd_per_month": params.price(total),
        "things": [
            {
                "kind": one.kind,
                "key": one.key,
                "why": one.why,
                "objects": one.objects,
                "bytes": one.bytes,
                "newest": one.newest.isoformat(),
                "age_days": round(_days(one, now), 3),
                "stays": one in stayed,
            }
            for one in found
        ],
    }


def _days(thing: Garbage, now: datetime) -> float:
    return (now - thing.newest).total_seconds() / 86400


VERBS = (gc,)
