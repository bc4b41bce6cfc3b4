"""Which sweep a name means, and what of two sweeps differs."""

import pytest
from compare_samples import put_sweep, spread

from evaluation.compare_runs import differences, find_sweeps, finished_keys, short_names, warnings
from evaluation.config import Checkpoint
from evaluation.publish import publish
from evaluation.results import finished_sweep, read_seal
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings

FIRST, SECOND, THIRD = "aa11" + "0" * 28, "aa22" + "0" * 28, "bb33" + "0" * 28


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("home"), tracking_uri="")


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Three finished sweeps and one without a seal."""
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    put_sweep(lake, FIRST, spread([1.0, 2.0]), seeds=[0], denoising={"cases": 2})
    put_sweep(lake, SECOND, spread([1.0, 2.0]), seeds=[0], denoising={"cases": 5})
    put_sweep(lake, THIRD, spread([1.0, 2.0]), base="runs/pretrain/bb", manifest="e" * 32)
    lake.write(f"runs/evaluate/{'cc44' + '0' * 28}/table.parquet", b"")
    return lake


@pytest.fixture(scope="module")
def published(lake, settings):
    """The parent runs of the first and the third sweep in MLflow, told in this order."""
    return [publish(lake, finished_sweep(lake, f"runs/evaluate/{name}"), settings) for name in (FIRST, THIRD)]


@pytest.mark.parametrize("name", [THIRD, "bb33", f"runs/evaluate/{THIRD}", f"/some/lake/runs/evaluate/{THIRD}/"])
def test_a_sweep_has_several_names(lake, settings, name):
    first, third = find_sweeps(lake, [FIRST, name], settings)
    assert (first.fingerprint, third.fingerprint) == (FIRST, THIRD)
    assert len(third.run.table) == 2


def test_mlflow_names_sweeps_by_run_and_by_age(lake, settings, published):
    assert [run.fingerprint for run in find_sweeps(lake, published, settings)] == [FIRST, THIRD]
    assert [run.fingerprint for run in find_sweeps(lake, ["newest", "previous"], settings)] == [THIRD, FIRST]


def test_a_sweep_that_mlflow_has_of_another_lake_is_not_the_newest(published, lake, settings, tmp_path):
    other = open_lake(str(tmp_path))
    put_sweep(other, FIRST, spread([1.0]))
    put_sweep(other, SECOND, spread([1.0]))
    assert [run.fingerprint for run in find_sweeps(other, ["newest", SECOND], settings)] == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([FIRST], f"{FIRST} alone cannot be compared: name at least two sweeps"),
        ([], "nothing alone cannot be compared"),
        ([FIRST, "aa11"], f"{FIRST} and aa11 are the same sweep"),
        ([THIRD, "aa"], "has no finished sweep 'aa': there are aa11"),
        ([FIRST, "dead" * 8], "has no finished sweep 'deaddead"),
        ([FIRST, "cc44"], "has no finished sweep 'cc44'"),
    ],
)
def test_a_name_that_means_no_sweep_is_one_sentence(lake, settings, names, sentence):
    with pytest.raises(UserError, match=sentence):
        find_sweeps(lake, names, settings)


def test_a_prefix_of_two_names_both(lake, settings):
    put_sweep(lake, "bb33" + "f" * 28, [*spread([1.0])])
    try:
        with pytest.raises(UserError, match=f"bb33 may be any of {THIRD}, bb33f+: give more characters"):
            find_sweeps(lake, [FIRST, "bb33"], settings)
    finally:
        lake.delete(f"runs/evaluate/{'bb33' + 'f' * 28}/seal.json")


def test_without_mlflow_nothing_is_the_newest(lake, tmp_path):
    empty = Settings(home=tmp_path, tracking_uri="")
    with pytest.raises(UserError, match="there is no newest sweep, because MLflow knows 0 of the 3 finished sweeps"):
        find_sweeps(lake, ["newest", FIRST], empty)


def test_a_lake_without_sweeps_says_what_to_do(tmp_path, settings):
    with pytest.raises(UserError, match="it has none yet; run `meddiff evaluate` first"):
        find_sweeps(open_lake(str(tmp_path)), [FIRST, SECOND], settings)


def test_names_are_as_short_as_they_may_be(lake, settings):
    assert short_names(find_sweeps(lake, [FIRST, SECOND], settings)) == ["aa110000", "aa220000"]
    assert len(finished_keys(lake)) == 3


def test_what_differs_and_what_to_beware_of(lake, settings):
    seals = [side.seal for side in find_sweeps(lake, [FIRST, SECOND, THIRD], settings)]
    assert differences(seals[:2]) == {"denoising.cases": ["2", "5"]}
    assert warnings(seals[:2]) == []
    assert differences(seals) == {
        "data": ["d" * 32, "d" * 32, "e" * 32],
        "base": ["runs/pretrain/aa", "runs/pretrain/aa", "runs/pretrain/bb"],
        "seeds": ["[0]", "[0]", "–"],
        "denoising.cases": ["2", "5", "–"],
    }
    assert warnings(seals) == ["the sweeps are of different data: numbers are over the patients in common"]
    (other,) = warnings([seals[0], seals[0].replace(recipe="s" * 32)])
    assert "different recipes" in other


@pytest.fixture
def several(lake):
    """A sweep that judged three checkpoints."""
    name, bases = "dd55" + "0" * 28, ("n" * 32, "c" * 32, "o" * 32)
    rows = [row for base in bases for row in spread([1.0, 2.0], checkpoint=base)]
    others = tuple(Checkpoint(base=f"runs/pretrain/{base}") for base in bases[1:])
    key = put_sweep(lake, name, rows, base=f"runs/pretrain/{bases[0]}")
    seal = read_seal(lake, key).model_copy(update={"others": others})
    lake.write(f"{key}/seal.json", seal.model_dump_json().encode())
    yield name
    lake.delete(f"{key}/seal.json")


def test_one_sweep_alone_stands_for_its_checkpoints_the_one_it_was_made_for_last(lake, settings, several):
    sides = find_sweeps(lake, [several], settings)
    assert short_names(sides) == ["dd550000@cccccccc", "dd550000@oooooooo", "dd550000@nnnnnnnn"]
    assert [set(side.run.table["checkpoint"]) for side in sides] == [{"c" * 32}, {"o" * 32}, {"n" * 32}]
    assert differences([side.seal for side in sides]) == {"base": [f"runs/pretrain/{name * 32}" for name in "con"]}


def test_a_checkpoint_of_a_sweep_is_named_behind_it(lake, settings, several):
    sides = find_sweeps(lake, [FIRST, several, f"{several}@oo"], settings)
    assert short_names(sides) == ["aa110000", "dd550000@nnnnnnnn", "dd550000@oooooooo"]
    with pytest.raises(UserError, match=r"is no one checkpoint of that sweep: it has n+, c+, o+$"):
        find_sweeps(lake, [FIRST, f"{several}@x"], settings)
