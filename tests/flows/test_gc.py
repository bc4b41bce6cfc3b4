"""`meddiff gc`: what nothing kept is made of may go, and whatever becomes of the process, nothing else does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import call
from gc_world import PROMOTION, World, a_history, aged, contents, keys_of, uploaded
from store_samples import RECIPE, MadeSource

from evaluation.cell_files import read_cell
from evaluation.champion import overlap, promote_candidate, read_champion
from evaluation.results import finished_sweep, read_seal
from flows import cli_gc, retention
from flows.params import SourceSpec
from flows.plan import ingest_status, plan
from flows.profiles import demo as demo_profile
from infra.lake import open_lake
from preprocessing.convert import convert_case
from preprocessing.manifest import commit, manifest_numbers, read_manifest
from preprocessing.recipe import demo
from preprocessing.seal import seal_key
from preprocessing.store import open_case
from training.runs import RunStart, note_start, run_exists

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ("--grace-days", "0", "--keep-manifests", "1", "--keep-runs", "1")
GONE = {  # of the history; the champion a keeps manifest 1, the newest c keeps manifest 3
    "manifest 2", "case 1 of 2", "killed store", "killed training", "lone cell",
    "base b", "control b", "sweep 2", "cell 0 of 2", "cell 1 of 2",
}  # fmt: skip


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("history")
    return a_history(open_lake(str(folder / "lake")), folder)


@pytest.fixture
def world(history, tmp_path) -> World:
    """A copy of the history with its times."""
    shutil.copytree(history.lake.url, tmp_path / "home" / "lake")
    return World(open_lake(str(tmp_path / "home" / "lake")), history.source, history.keys)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.server)])
def any_world(request) -> World:
    """The same in a folder and in a bucket."""
    if request.param == "folder":
        return request.getfixturevalue("world")
    return uploaded(request.getfixturevalue("history"), open_lake(f"{request.getfixturevalue('s3_bucket')}/lake"))


def collect(capsys, world, *options):
    code, out, err = call(capsys, "gc", "--lake", world.lake.url, *options, "--json")
    assert code == 0, err
    return out


def pictures(keys):
    return {key for key in keys if not key.startswith("previews/")}


def test_without_delete_everything_is_told_and_nothing_is_gone(world, capsys):
    before = contents(world.lake)
    out = collect(capsys, world, *EVERYTHING)
    assert pictures(keys_of(out)) == {world.keys[name] for name in GONE}
    assert contents(world.lake) == before
    found = json.loads(out)
    sizes = {one.key: one.size for one in world.lake.objects()}
    for thing in found["things"]:
        inside = [key for key in sizes if key.startswith(f"{thing['key']}/") or key == thing["key"]]
        if thing["kind"] == "store" and seal_key(thing["key"]) in sizes:
            inside.append(seal_key(thing["key"]))
        assert (thing["objects"], thing["bytes"]) == (len(inside), sum(sizes[key] for key in inside))
    assert found["usd_per_month"] == pytest.approx(found["bytes"] / 2**30 * 0.023)


def test_what_is_kept_works_as_before(any_world, capsys, monkeypatch):
    lake = any_world.lake

    def told():
        manifest = read_manifest(lake, demo())
        code, cases, err = call(capsys, "cases", "--lake", lake.url, "--recipe", "demo", "--verify", "--json")
        assert (code, "quarantined" in err) == (0, False)
        profile = demo_profile(lake.url).replace(sources=(SourceSpec(name="phantom"),))
        monkeypatch.setattr(SourceSpec, "make", lambda _: any_world.source)
        sweeps = [any_world.keys[f"sweep {n}"] for n in (1, 3)]
        cells = [key for sweep in sweeps for key in read_seal(lake, sweep).cells]
        return (
            json.loads(cases),
            ingest_status(lake, manifest, any_world.source),
            plan(lake, profile),
            [finished_sweep(lake, key).table.to_dict() for key in sweeps],
            [read_cell(lake, key).table.to_dict() for key in cells],
            overlap(lake, demo(), read_champion(lake).checkpoint, manifest.fingerprint),
            promote_candidate(lake, demo(), any_world.keys["sweep 1"], PROMOTION),
        )

    before = told()
    assert len(before[0]) == 2
    old = read_manifest(lake, demo(), 1)
    found = keys_of(collect(capsys, any_world, *EVERYTHING, "--delete"))
    assert pictures(found) == {any_world.keys[name] for name in GONE}
    assert told() == before
    assert manifest_numbers(lake, demo()) == [1, 3]
    for key in read_manifest(lake, demo(), 1).rows["key"]:
        assert open_case(lake, key).read_all("image").size
    assert read_manifest(lake, demo(), 1).fingerprint == old.fingerprint
    assert json.loads(collect(capsys, any_world, *EVERYTHING))["things"] == []
    gone = {any_world.keys[name] for name in GONE}
    assert not [key for key in lake.list() if key.startswith(tuple(gone))]
    folders = [] if lake.bucket else [path for path in Path(lake.url).rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders)


def test_nothing_of_the_last_week_goes(world, capsys):
    assert json.loads(collect(capsys, world, "--keep-manifests", 1, "--keep-runs", 1))["things"] == []


def test_a_training_that_goes_on_keeps_its_checkpoints_and_its_data(world, capsys):
    aged(world.lake, 30)
    running = world.keys["killed training"]
    note_start(world.lake, RunStart(key=running, manifest="", config={}))  # the same command again
    found = keys_of(collect(capsys, world, *EVERYTHING[2:]))
    assert running not in found
    assert world.keys["manifest 2"] not in found, "it was begun on this"
    assert world.keys["case 1 of 2"] not in found
    assert world.keys["lone cell"] in found
    assert world.keys["killed store"] in found


def test_a_manifest_that_was_the_newest_within_the_grace_period_stays(world, capsys):
    aged(world.lake, 30)
    newest = Path(world.lake.url, world.keys["manifest 3"])
    os.utime(newest)
    found = keys_of(collect(capsys, world, *EVERYTHING[2:]))
    assert world.keys["manifest 2"] not in found, "who opened it an hour ago may still be reading"
    assert world.keys["case 1 of 2"] not in found


def test_what_is_used_between_the_look_and_the_removal_stays(world, capsys, monkeypatch):
    """A case comes back, and a sweep judges an old run, while gc is on its way."""
    aged(world.lake, 30)
    delete = cli_gc.delete_garbage

    def used_meanwhile(lake, found, *rest):
        assert world.keys["case 1 of 2"] in {thing.key for thing in found}
        lake.touch(seal_key(world.keys["case 1 of 2"]))
        lake.touch(f"{world.keys['base b']}/seal.json")
        return delete(lake, found, *rest)

    monkeypatch.setattr(cli_gc, "delete_garbage", used_meanwhile)
    found = json.loads(collect(capsys, world, *EVERYTHING[2:], "--delete"))
    stayed = {thing["key"] for thing in found["things"] if thing["stays"]}
    assert stayed == {world.keys["case 1 of 2"], world.keys["base b"]}
    assert open_case(world.lake, world.keys["case 1 of 2"]).read_all("image").size
    assert run_exists(world.lake, world.keys["base b"])
    assert not run_exists(world.lake, world.keys["sweep 2"])


def test_finished_runs_all_stay_unless_a_number_is_given(world, capsys):
    found = keys_of(collect(capsys, world, "--grace-days", 0))
    assert pictures(found) == {world.keys[name] for name in ("killed store", "killed training", "lone cell")}


def test_a_run_that_an_alias_in_mlflow_names_stays(world, capsys, monkeypatch):
    base = world.keys["base b"]
    monkeypatch.setattr(retention, "aliased_fingerprints", lambda _: frozenset({base[-32:]}))
    found = keys_of(collect(capsys, world, *EVERYTHING))
    assert base not in found
    assert world.keys["control b"] in found


def test_where_mlflow_is_away_no_finished_run_is_given_up(world, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, err = call(capsys, "gc", "--lake", world.lake.url, *EVERYTHING)
    assert (code, out) == (1, "")
    assert "does not answer, so nobody knows which runs its aliases name" in err


def test_a_seal_that_cannot_be_read_stops_the_collection(world, capsys):
    world.lake.write(f"{world.keys['sweep 3']}/seal.json", b'{"format": 9}')
    before = contents(world.lake)
    code, _, err = call(capsys, "gc", "--lake", world.lake.url, *EVERYTHING, "--delete")
    assert code == 1
    assert "has format 9" in err
    assert contents(world.lake) == before


def test_old_recipes_go_only_when_asked_for_and_only_where_no_run_needs_them(world, capsys):
    older = RECIPE.replace(version=1)
    source = MadeSource(world.source.path)
    row = convert_case(source.case(0), source, older, world.lake)
    commit(world.lake, older, {"made": [row]})
    assert row.key not in keys_of(collect(capsys, world, *EVERYTHING))
    found = keys_of(collect(capsys, world, *EVERYTHING, "--old-recipes"))
    assert {row.key, f"manifests/{older.fingerprint}/00000001.parquet"} <= found
    assert world.keys["manifest 3"] not in found
    trained_on = read_manifest(world.lake, older).fingerprint
    note_start(world.lake, RunStart(key=f"runs/pretrain/{'d' * 32}", manifest=trained_on, config={}))
    aged(world.lake, 1)
    os.utime(Path(world.lake.url, f"runs/pretrain/{'d' * 32}/start.json"))
    found = keys_of(collect(capsys, world, "--grace-days", "0.5", *EVERYTHING[2:], "--old-recipes"))
    assert row.key not in found


def test_data_that_were_read_without_exclusions_are_known_by_their_run(world, capsys):
    like = demo().replace(split=demo().split.replace(paper_like=True))
    judged = read_manifest(world.lake, like, 2).fingerprint
    key = f"runs/pretrain/{'d' * 32}"
    note_start(world.lake, RunStart(key=key, manifest=judged, config={}))
    aged(world.lake, 30)
    assert world.keys["manifest 2"] in keys_of(collect(capsys, world, *EVERYTHING[2:]))
    os.utime(Path(world.lake.url, f"{key}/start.json"))
    assert world.keys["manifest 2"] not in keys_of(collect(capsys, world, *EVERYTHING[2:]))


KILLED = """
import os, signal, sys
from infra.lake import Lake
from flows import cli
left, delete, delete_all = int(sys.argv[1]), Lake.delete, Lake.delete_all
def killed(take_away):
    def one(self, keys):
        global left
        for key in [keys] if isinstance(keys, str) else keys:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            take_away(self, key if take_away is delete else [key])
    return one
Lake.delete, Lake.delete_all = killed(delete), killed(delete_all)
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.parametrize("after", [1, 12, 45])
def test_killed_anywhere_the_same_command_ends_the_same(world, capsys, tmp_path, after):
    whole = World(open_lake(str(shutil.copytree(world.lake.url, tmp_path / "whole"))), world.source, world.keys)
    collect(capsys, whole, *EVERYTHING, "--delete")
    command = [sys.executable, "-c", KILLED, str(after), "gc", "--lake", world.lake.url, *EVERYTHING, "--delete"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    for number in manifest_numbers(world.lake, demo()):
        for key in read_manifest(world.lake, demo(), number).rows["key"]:
            assert open_case(world.lake, key).read_all("image").size, "no manifest outlives its stores"
    for key in (key for key in world.lake.list("runs") if key.endswith("evaluate/seal.json")):
        assert all(run_exists(world.lake, cell) for cell in read_seal(world.lake, key.removesuffix("/seal.json")).cells)
    collect(capsys, world, *EVERYTHING, "--delete")
    assert contents(world.lake) == contents(whole.lake)


def test_what_killed_writers_left_goes_after_the_grace_period(world, capsys, tmp_path):
    leftovers = [Path(world.lake.url, "ct", ".x.1.partial"), Path(world.lake.url, "raw/s/v/a.tar.partial")]
    leftovers.append(tmp_path / "home" / "untracked" / "pretrain-1.json")
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert "partial" not in collect(capsys, world)
    for path in leftovers:
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    found = json.loads(collect(capsys, world, "--delete"))
    assert [thing["kind"] for thing in found["things"]] == ["partial", "partial", "untracked"]
    assert not any(path.exists() for path in leftovers)


def test_the_table_says_what_it_is_why_it_may_go_and_what_that_saves(world, capsys):
    code, out, err = call(capsys, "gc", "--lake", world.lake.url, *EVERYTHING, "--price-per-gb-month", "1000")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    for words in (
        f"unfinished {world.keys['killed training']}",
        f"not of the 1 newest, nor used by them {world.keys['base b']}",
        f"in no kept manifest {world.keys['case 1 of 2']}",
        f"never sealed {world.keys['killed store']}",
        "USD a month may go, nothing was deleted: --delete does",
    ):
        assert words in said
    assert ", 0.00 USD" not in said


def test_an_empty_lake_has_no_garbage(lake, capsys):
    code, out, _ = call(capsys, "gc", "--lake", lake.url, *EVERYTHING, "--raw", "--old-recipes")
    assert code == 0
    assert out.startswith("0 things, 0 B, 0.00 USD a month may go")


def test_a_lake_that_is_not_there_is_one_sentence(tmp_path, capsys):
    code, out, err = call(capsys, "gc", "--lake", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert "there is no lake at" in err
