"""Fanning a function out over items: each comes back once, dead workers included."""

import os
import time

import pytest

from infra.cluster import fan_out, open_cluster
from infra.errors import UserError


def square(number: int) -> int:
    return number * number


def odd_jobs(job: str) -> object:
    if job == "die":
        time.sleep(0.2)
        os._exit(1)
    if job == "raise":
        raise ValueError("seven is odd")
    if job == "unpicklable":
        return (number for number in ())
    if job == "threads":
        return os.environ["OMP_NUM_THREADS"], os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"]
    return job, os.getpid()


@pytest.fixture(scope="module")
def client():
    with open_cluster(workers=2) as client:
        yield client


def test_every_item_comes_back_once_with_its_own_result(client):
    assert sorted(fan_out(square, range(50), client=client)) == [(n, n * n) for n in range(50)]


def test_quick_items_share_a_future_and_slow_ones_do_not(client, monkeypatch):
    groups = []
    submit = type(client).submit
    monkeypatch.setattr(type(client), "submit", lambda *a, **k: (groups.append(a[3]), submit(*a, **k))[1])
    assert sorted(fan_out(square, range(300), client=client)) == [(n, n * n) for n in range(300)]
    assert len(groups) < 150
    groups.clear()
    assert sorted(item for item, _ in fan_out(nap_and_count, [0.06] * 9, client=client)) == [0.06] * 9
    assert [len(group) for group in groups] == [1] * 9


def test_what_a_worker_does_not_come_to_in_time_is_given_out_again(client):
    naps = [0.0] * 100 + [0.06, 0.07, 0.08, 0.09] * 3
    results = [item for item, _ in fan_out(nap_and_count, naps, client=client)]
    assert sorted(results) == sorted(naps)


def test_a_result_that_cannot_travel_is_the_error_of_its_item_only(client):
    results = dict(fan_out(odd_jobs, [*map(str, range(60)), "unpicklable", "z"], client=client))
    assert isinstance(results["unpicklable"], Exception)
    assert [job for job, result in results.items() if isinstance(result, Exception)] == ["unpicklable"]
    assert len(results) == 62


def test_only_a_few_items_are_drawn_ahead_of_the_results(client):
    drawn = []
    items = (drawn.append(n) or n for n in range(100))
    next(fan_out(square, items, client=client))
    assert len(drawn) < 20


def test_an_exception_belongs_to_its_item_and_the_rest_go_on(client):
    results = dict(fan_out(odd_jobs, ["a", "raise", "b"], client=client))
    assert isinstance(results["raise"], ValueError)
    assert str(results["raise"]) == "seven is odd"
    assert results["a"][0] == "a"
    assert results["b"][0] == "b"


def test_a_worker_keeps_its_libraries_to_one_thread(client):
    [(_, result)] = fan_out(odd_jobs, ["threads"], client=client)
    assert result == ("1", "1")


def test_the_workers_one_thread_does_not_stay_with_this_process(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with open_cluster(workers=1) as own:
        assert list(fan_out(odd_jobs, ["threads"], client=own)) == [("threads", ("1", "1"))]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_work_runs_in_other_processes(client):
    [(_, (_, pid))] = fan_out(odd_jobs, ["a"], client=client)
    assert pid != os.getpid()


def test_a_dead_worker_is_an_error_of_its_item_and_the_rest_go_on():
    results = dict(fan_out(odd_jobs, ["a", "b", "die", "c", "d"], workers=2))
    assert "KilledWorker" in type(results["die"]).__name__
    assert [results[job][0] for job in "abcd"] == list("abcd")


def test_an_address_where_nobody_answers_is_a_sentence(monkeypatch):
    monkeypatch.setattr("infra.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*MEDDIFF_DASK_ADDRESS"):
        list(fan_out(square, [1], address="tcp://127.0.0.1:9"))


def nap_and_count(seconds: float) -> float:
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


def test_a_worker_leaves_its_core_to_the_work(client):
    spent = [cpu for _, cpu in fan_out(nap_and_count, [2.0, 2.0], client=client)]
    assert max(spent) < 0.06  # Dask's defaults take about 0.08
