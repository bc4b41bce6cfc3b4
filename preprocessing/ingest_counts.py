"""What became of the cases of one ingest: counts by source for people, and what the work took for later plans."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from infra.config import Config
from infra.fingerprint import fingerprint
from infra.spent import Spent
from preprocessing.changes import Changes
from preprocessing.manifest import ManifestRow
from preprocessing.recipe import Recipe


class SourceCounts(Config):
    """What became of one source's cases.

    Of the `listed`, those that were new, changed or to be made again are `converted`, the others are `unchanged`, or
    left as they are where only some were asked for; all of them are either `sealed` or `quarantined`, for so many of
    each of the `reasons`. `withdrawn` ones are listed no more. `received` bytes travelled; the converted cases take
    `stored` bytes in the lake.
    """

    source: str
    listed: int = 0
    sealed: int = 0
    converted: int = 0
    unchanged: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    withdrawn: int = 0
    received: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Converted:
    """A case's row, the bytes that travelled for it, what it takes in the lake, and the seconds of its worker."""

    row: ManifestRow
    received: int = 0
    stored: int = 0
    objects: int = 0
    seconds: float = 0.0


def pace_of_cases(recipe: Recipe, source: str) -> str:
    """Under what is noted how long a source's cases take to convert."""
    return fingerprint([recipe.fingerprint, source])


def spent_on(results: Sequence[Converted]) -> Spent:
    """What the cases took that reached a worker."""
    done = [result for result in results if result.seconds]
    return Spent(
        count=len(done),
        seconds=sum(result.seconds for result in done),
        received=sum(result.received for result in done),
        stored=sum(result.stored for result in done),
        objects=sum(result.objects for result in done),
    )


def counts_of(name: str, changes: Changes, results: Sequence[Converted]) -> SourceCounts:
    """What became of one source's cases, but for what was received."""
    known = [changes.known[case] for case in changes.kept]
    rows = [*known, *(result.row for result in results)]
    reasons = Counter(row.reason or "" for row in rows if row.status == "quarantined")
    return SourceCounts(
        source=name,
        listed=len(rows),
        sealed=len(rows) - reasons.total(),
        converted=len(results),
        unchanged=len(known),
        quarantined=reasons.total(),
        reasons=dict(reasons.most_common()),
        withdrawn=len(changes.withdrawn),
        stored=sum(result.stored for result in results),
    )
