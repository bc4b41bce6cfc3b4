"""A lake with a history: data versions, withdrawn and half-written cases, runs that build on each other, a champion."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from store_samples import MadeSource, made_pyramid, made_record

from evaluation.cell_files import Measured, write_cell
from evaluation.cells import Cell
from evaluation.champion import promote_candidate
from evaluation.config import Checkpoint
from evaluation.promotion import PromotionConfig, Rule
from evaluation.results import SweepSeal
from evaluation.table import to_parquet, validate
from infra.fingerprint import digest
from infra.lake import Lake
from preprocessing.convert import convert_case
from preprocessing.manifest import commit, read_manifest
from preprocessing.recipe import demo
from preprocessing.store import write_case
from training.config import ModelConfig
from training.runs import RunSeal, RunStart, note_start, seal_key

PROMOTION = PromotionConfig(rules=(Rule(task="superresolution", metric="psnr"),))
DAY_S = 86400


@dataclass(frozen=True)
class World:
    """Keys of what is in the lake, by name, and the source that was ingested."""

    lake: Lake
    source: MadeSource
    keys: dict[str, str]


def a_history(lake: Lake, folder: Path) -> World:
    """Three data versions; a champion on the first, a rival that lost on the last, and what killed processes left."""
    (folder / "data").mkdir()
    source = MadeSource(folder / "data")
    first = {n: convert_case(source.case(n), source, demo(), lake) for n in range(3)}
    commit(lake, demo(), {"made": list(first.values())})
    keys = {f"case {n} of 1": row.key for n, row in first.items()}
    keys |= champion(lake)
    source.changes = {1: {"version": "v2", "notes": ("measured anew",)}}
    second = convert_case(source.case(1), source, demo(), lake)
    commit(lake, demo(), {"made": [first[0], second, first[2]]})
    source.changes[1] |= {"version": "v3", "notes": ("once more",)}
    third = convert_case(source.case(1), source, demo(), lake)
    commit(lake, demo(), {"made": [first[0], third]})
    source.patients = 2
    keys |= {"case 1 of 2": second.key, "case 1 of 3": third.key} | rival(lake)
    return World(lake, source, keys | half_written(lake) | manifests(lake))


def manifests(lake: Lake) -> dict[str, str]:
    return {f"manifest {n}": key for n, key in enumerate(sorted(lake.list("manifests")), 1)}


def half_written(lake: Lake) -> dict[str, str]:
    """A store and a training without a seal, and a cell that no sweep is made of."""
    store = f"ct/{demo().fingerprint}/made/killed/{'9' * 16}.zarr"
    write_case(lake, store, made_pyramid(), made_record(case="killed"), demo())
    training = f"runs/pretrain/{'e' * 32}"
    note_start(lake, RunStart(key=training, manifest=read_manifest(lake, demo(), 2).fingerprint, config={}))
    lake.write(f"{training}/step-00000010.pt", b"weights")
    return {
        "killed store": store,
        "killed training": training,
        "lone cell": cell(lake, "lone", f"runs/pretrain/{'e' * 32}"),
    }


def trained(lake: Lake, letter: str) -> Checkpoint:
    """A pre-training and a ControlNet on the newest manifest."""
    base, control = f"runs/pretrain/{letter * 32}", f"runs/finetune/0{letter * 31}"
    for stage, key, on in (("pretrain", base, ""), ("finetune", control, base)):
        lake.write(f"{key}/step-00000001.pt", b"weights")
        seal = RunSeal(
            stage=stage, run=key[-32:], manifest=read_manifest(lake, demo()).fingerprint, model=ModelConfig(), step=1,
            config={"task": "superresolution"} if on else {}, base=on, checkpoint=f"{key}/step-00000001.pt",
            sha256=digest(b"weights"), metrics={}, history=(),
        )  # fmt: skip
        lake.write(seal_key(key), seal.model_dump_json().encode())
    return Checkpoint(base=base, controls={"superresolution": control})


def cell(lake: Lake, name: str, base: str) -> str:
    key = f"runs/cells/{digest(name.encode())[:32]}"
    of = Cell(checkpoint=Checkpoint(base=base), task="denoising", region="chest", seed=0)
    write_cell(lake, key, of, Measured(rows(of.checkpoint)), 1.0)
    return key


def rows(*checkpoints: Checkpoint):
    """Measurements of which each checkpoint's are much better than the former's."""
    return validate(
        {"checkpoint": one.name, "task": "superresolution", "dataset": "made", "region": "chest", "setting": "x2",
         "method": "ours", "case": f"c{i}", "patient": f"p{i}", "metric": "psnr", "unit": "dB", "value": 30.0 + i - n}
        for n, one in enumerate(checkpoints) for i in range(8)
    )  # fmt: skip


def swept(lake: Lake, name: str, *checkpoints: Checkpoint) -> dict[str, str]:
    """A finished sweep of one cell for each checkpoint."""
    key, cells = f"runs/evaluate/{name * 32}", [cell(lake, f"{name}{one.base}", one.base) for one in checkpoints]
    data = to_parquet(rows(*checkpoints))
    first, *others = checkpoints
    seal = SweepSeal(
        run=name * 32, manifest=read_manifest(lake, demo()).fingerprint, recipe=demo().fingerprint, config={},
        base=first.base, controls=first.controls, others=tuple(others), cells=tuple(cells), table=digest(data),
        evaluations=0,
    )  # fmt: skip
    lake.write(f"{key}/table.parquet", data)
    lake.write(seal_key(key), seal.model_dump_json().encode())
    return {f"sweep {name}": key, **{f"cell {n} of {name}": one for n, one in enumerate(cells)}}


def champion(lake: Lake) -> dict[str, str]:
    """The champion a, its sweep 1 and the decision."""
    best = trained(lake, "a")
    keys = swept(lake, "1", best)
    with pytest.MonkeyPatch.context() as without_mlflow:
        without_mlflow.setattr("evaluation.champion.move_alias", lambda *_: None)
        run = promote_candidate(lake, demo(), keys["sweep 1"], PROMOTION).run
    return {
        "base a": best.base,
        "control a": best.controls["superresolution"],
        "decision": f"runs/promote/{run}",
        **keys,
    }


def rival(lake: Lake) -> dict[str, str]:
    """Two later checkpoints: b in sweep 2 beside the champion, c, the newest, in sweep 3."""
    found = {}
    best = Checkpoint(base=f"runs/pretrain/{'a' * 32}", controls={"superresolution": f"runs/finetune/0{'a' * 31}"})
    for letter, name in (("b", "2"), ("c", "3")):
        time.sleep(0.01)
        one = trained(lake, letter)
        found |= {f"base {letter}": one.base, f"control {letter}": one.controls["superresolution"]}
        found |= swept(lake, name, one, best)
    return found


def uploaded(world: World, lake: Lake) -> World:
    """The same history in a bucket, whose times are whole seconds: what is the newest of its kind comes later."""
    keys = world.lake.list()
    last = tuple(world.keys[name] for name in ("base c", "control c", "sweep 3", "cell 0 of 3", "cell 1 of 3"))
    for wanted in (False, True):
        lake.write_all((key, world.lake.read(key)) for key in keys if key.startswith(last) is wanted)
        time.sleep(1.1)
    return replace(world, lake=lake)


def aged(lake: Lake, days: float) -> None:
    """Everything in a folder so many days older; in the order of its times."""
    for path in Path(lake.url).rglob("*"):
        if path.is_file():
            at = path.stat().st_mtime - days * DAY_S
            os.utime(path, (at, at))


def contents(lake: Lake) -> dict[str, str]:
    """Every object's digest."""
    return {key: digest(lake.read(key)) for key in lake.list()}


def keys_of(output: str) -> set[str]:
    """The keys in what `gc --json` printed."""
    return {thing["key"] for thing in json.loads(output)["things"]}
