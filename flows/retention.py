"""Retention: what `meddiff gc` keeps, what may go of a lake and this machine, and taking it away. Needs no Prefect.

What is made of others goes before those: runs, then the manifests that they were made on, then stores. So a manifest
that is there names only stores that are there, wherever a removal was killed; the next one goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from pydantic import Field

from evaluation.garbage import STAGES, run_garbage
from infra.config import Config
from infra.errors import UserError
from infra.garbage import Garbage, partial_garbage, remove
from infra.lake import Lake
from infra.settings import Settings
from infra.tracking import aliased_fingerprints
from preprocessing.garbage import manifest_garbage, picture_garbage, read_references, store_garbage

GIB = 2**30
ORDER = (*STAGES, "manifest", "store", "preview", "segmentation", "raw", "partial", "untracked")
REMOVALS = 8  # at once
OnProgress = Callable[[int, int], None]


class GcParams(Config):
    """What is kept and what may go; with nothing said, a report of what is certainly of no use."""

    lake: str = Field(
        "",
        description="folder or s3:// url; empty = the lake of the machine that runs it",
        json_schema_extra={"position": 0},
    )
    delete: bool = Field(
        False, description="really delete; otherwise it is only reported", json_schema_extra={"position": 1}
    )
    grace_days: float = Field(
        7.0,
        ge=0,
        description="what was written or used in the last days stays; longer than any ingest, training or sweep takes",
        json_schema_extra={"position": 2},
    )
    keep_manifests: int = Field(
        10,
        ge=1,
        description="data versions of each recipe that stay; those that a run was made on stay anyway",
        json_schema_extra={"position": 3},
    )
    keep_runs: int | None = Field(
        None,
        ge=1,
        description="finished runs of each stage that stay, beside the champion, what aliases in MLflow name, and all "
        "that these are made of; none = all",
        json_schema_extra={"position": 4},
    )
    old_recipes: bool = Field(
        False,
        description="also data of recipe versions that are no longer written, unless a run was made on it",
        json_schema_extra={"position": 5},
    )
    raw: bool = Field(
        False, description="also pulled files that no kept data version is made of", json_schema_extra={"position": 6}
    )
    price_per_gb_month: float = Field(
        0.023, ge=0, description="USD for 2^30 bytes a month; S3 standard", json_schema_extra={"position": 7}
    )

    def cutoff(self) -> datetime:
        """What was written or used since then stays."""
        return datetime.now(UTC) - timedelta(days=self.grace_days)

    def price(self, count: int) -> float:
        """USD a month for so many bytes."""
        return count / GIB * self.price_per_gb_month


def find_garbage(lake: Lake, params: GcParams, settings: Settings, cutoff: datetime) -> list[Garbage]:
    """What may go, in the order in which it has to.

    Raises:
        UserError: what is to be kept cannot be told.
    """
    return sorted(_found(lake, params, settings, cutoff), key=lambda thing: ORDER.index(thing.kind))


def _found(lake: Lake, params: GcParams, settings: Settings, cutoff: datetime) -> Iterator[Garbage]:
    runs, needed = run_garbage(lake, keep=params.keep_runs, cutoff=cutoff, named=_named(params, settings))
    manifests, kept = manifest_garbage(
        lake, keep=params.keep_manifests, cutoff=cutoff, needed=needed, old_recipes=params.old_recipes
    )
    references = read_references(lake, kept)
    yield from (*runs, *manifests)
    yield from store_garbage(lake, references, cutoff)
    yield from picture_garbage(lake, references, cutoff)
    if params.raw:
        from preprocessing.garbage_raw import raw_garbage

        yield from raw_garbage(lake, references, cutoff)
    yield from partial_garbage(lake, cutoff)
    yield from _untracked(settings.home / "untracked", cutoff)


def _named(params: GcParams, settings: Settings) -> frozenset[str]:
    """The runs that aliases in MLflow name; not asked for where all finished runs stay."""
    if params.keep_runs is None:
        return frozenset()
    named = aliased_fingerprints(settings)
    if named is None:
        raise UserError(
            f"MLflow at {settings.mlflow_uri} does not answer, so nobody knows which runs its aliases name; start it, "
            "or keep all finished runs (without --keep-runs)"
        )
    return named


def _untracked(folder: Path, cutoff: datetime) -> Iterator[Garbage]:
    """What MLflow never took and was written down on this machine."""
    for path in sorted(folder.glob("*.json")):
        status = path.stat()
        at = datetime.fromtimestamp(status.st_mtime, UTC)
        if at < cutoff:
            yield Garbage("untracked", str(path), "MLflow never took it", 1, status.st_size, at)


def delete_garbage(
    lake: Lake, found: Sequence[Garbage], cutoff: datetime, on_progress: OnProgress | None = None
) -> list[Garbage]:
    """Take away what was found, one kind after the other; what was used since then stays and is given back."""
    stayed: list[Garbage] = []
    done = 0

    def take_away(thing: Garbage) -> bool:
        if thing.kind == "untracked":
            Path(thing.key).unlink(missing_ok=True)
            return True
        return remove(lake, thing, cutoff)

    with ThreadPoolExecutor(REMOVALS) as pool:
        for _, things in groupby(found, key=lambda thing: thing.kind):
            some = list(things)
            for thing, gone in zip(some, pool.map(take_away, some), strict=True):
                stayed += [] if gone else [thing]
                done += 1
                if on_progress:
                    on_progress(done, len(found))
    return stayed


def by_kind(found: Sequence[Garbage], params: GcParams) -> list[dict[str, str | int | float]]:
    """One row per kind: how many things and objects, bytes, USD a month."""
    rows: list[dict[str, str | int | float]] = []
    for kind in dict.fromkeys(thing.kind for thing in found):
        some = [thing for thing in found if thing.kind == kind]
        size = sum(thing.bytes for thing in some)
        objects = sum(thing.objects for thing in some)
        price = round(params.price(size), 4)
        rows.append({"kind": kind, "things": len(some), "objects": objects, "bytes": size, "USD a month": price})
    return rows
