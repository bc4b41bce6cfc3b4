"""What an ingest says of each source: what was done, or that nothing was."""

import pytest

from flows.counts import counts_line, size
from preprocessing.ingest_counts import SourceCounts


def test_a_source_of_which_nothing_was_read_says_so():
    counts = SourceCounts(source="word", listed=150, sealed=149, unchanged=150, quarantined=1)
    assert counts_line(counts) == "word: unchanged: 150 cases, nothing was transferred"


def test_a_changed_source_says_how_much():
    counts = SourceCounts(source="word", listed=150, sealed=148, converted=3, unchanged=147, quarantined=2, withdrawn=1,
                          received=1_250_000_000, stored=900_000_000)  # fmt: skip
    assert counts_line(counts) == (
        "word: 150 cases listed, 3 converted, 147 unchanged, 2 quarantined, 1 withdrawn; "
        "1.25 GB received, 900 MB stored"
    )


def test_a_source_that_only_lost_cases_is_not_unchanged():
    assert "1 withdrawn" in counts_line(SourceCounts(source="word", listed=1, sealed=1, unchanged=1, withdrawn=1))


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (4.2e15, "4.2e+03 TB")])
def test_sizes_are_short(count, text):
    assert size(int(count)) == text
