"""What work took, as a lake keeps it: the last time counts, and what cannot be read is only unknown."""

import pytest

from infra.spent import Spent, note_spent, read_spent


def test_the_last_time_counts(lake):
    note_spent(lake, "cases", "a", Spent(count=2, seconds=5.0))
    note_spent(lake, "cases", "a", Spent(count=4, seconds=8.0, stored=100, device="cuda"))
    assert read_spent(lake, "cases", "a") == Spent(count=4, seconds=8.0, stored=100, device="cuda")


def test_what_was_never_done_is_unknown_and_nothing_done_changes_nothing(lake):
    assert read_spent(lake, "steps", "a") is None
    note_spent(lake, "steps", "a", Spent(count=3, seconds=1.0))
    note_spent(lake, "steps", "a", Spent(count=0, seconds=0.0))
    assert read_spent(lake, "steps", "a") == Spent(count=3, seconds=1.0)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"count": 1', b'{"count": 0, "seconds": 1}'])
def test_a_damaged_note_is_unknown(lake, text):
    lake.write("costs/cells/a.json", text)
    assert read_spent(lake, "cells", "a") is None
