"""Counts: what an ingest says of each source at the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocessing.ingest_counts import SourceCounts

STEPS = ("B", "KB", "MB", "GB", "TB")


def unchanged_line(source: str, cases: int) -> str:
    """What a run says of a source of which nothing was read."""
    return f"{source}: unchanged: {cases} cases, nothing was transferred"


def counts_line(counts: "SourceCounts") -> str:
    """What became of a source's cases, in one line."""
    if not (counts.converted or counts.withdrawn or counts.received):
        return unchanged_line(counts.source, counts.listed)
    parts = [
        f"{counts.listed} cases listed",
        f"{counts.converted} converted",
        f"{counts.unchanged} unchanged",
        f"{counts.quarantined} quarantined",
        f"{counts.withdrawn} withdrawn",
    ]
    return f"{counts.source}: {', '.join(parts)}; {size(counts.received)} received, {size(counts.stored)} stored"


def size(count: int) -> str:
    """Bytes in the unit that leaves at most three digits before the point."""
    value, step = float(count), 0
    while value >= 1000 and step < len(STEPS) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {STEPS[step]}"
