"""The loader: whoever makes what a step learns from, it comes in order, not too far ahead, and errors pass through."""

import os
import time
from functools import partial
from pathlib import Path

import pytest

from infra.errors import UserError
from training.loader import AHEAD, made_ahead


def squared(step):
    return step * step, os.getpid()


def refused_at(refused, step):
    if step == refused:
        raise UserError(f"case {step} is gone; bring it back")
    return step


def noted(folder, step):
    (Path(folder) / str(step)).touch()
    return step


@pytest.mark.parametrize("workers", [0, 2])
def test_steps_come_in_order(workers):
    made = list(made_ahead(squared, range(3, 9), workers))
    assert [(step, value) for step, (value, _) in made] == [(n, n * n) for n in range(3, 9)]
    makers = {pid for _, (_, pid) in made}
    assert makers == {os.getpid()} if workers == 0 else len(makers) == 2
    assert os.getpid() not in makers or workers == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refusal_keeps_its_sentence(workers):
    seen = []
    with pytest.raises(UserError) as refusal:
        seen.extend(step for step, _ in made_ahead(partial(refused_at, 2), range(9), workers))
    assert str(refusal.value) == "case 2 is gone; bring it back"
    assert seen == [0, 1]


def test_nothing_to_do_starts_nothing():
    assert list(made_ahead(squared, range(5, 5), 2)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, AHEAD)])
def test_only_a_few_steps_are_made_ahead(tmp_path, workers, ahead):
    steps = made_ahead(partial(noted, str(tmp_path)), range(50), workers)
    for _ in range(3):
        next(steps)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 3 + ahead and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # what would run away has the time to
    assert 3 + ahead <= len(list(tmp_path.iterdir())) <= 4 + ahead
