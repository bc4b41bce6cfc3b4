"""The plan: what is sealed for this data and config is unchanged, everything after a change would run."""

import json
import subprocess
import sys

import pytest
from flow_samples import PATIENTS, phantom_rows

from evaluation.cells import cell_keys, cells_of
from evaluation.champion import promotion_key
from evaluation.config import Checkpoint, evaluate_key, used_segmenter_key
from flows.cli_models import _show_plan
from flows.cost import FREE
from flows.params import SourceSpec
from flows.plan import plan
from flows.profiles import demo
from flows.unit_costs import UNIT_COSTS
from preprocessing import recipe
from preprocessing.manifest import commit, read_manifest
from training.runs import finetune_key, pretrain_key, seal_key


def _profile(lake, patients=PATIENTS):
    return demo(lake.url).replace(sources=(SourceSpec(name="phantom", options={"patients": patients}),))


def _status(stages):
    return {stage.stage: stage.status for stage in stages}


def _seal_all(lake, profile):
    fingerprint = read_manifest(lake, recipe.demo()).fingerprint
    base = pretrain_key(fingerprint, profile.pretrain_config)
    controls = {c.task: finetune_key(fingerprint, c, base) for c in profile.finetune_configs}
    judged = Checkpoint(base=base, controls=controls)
    sweep = evaluate_key(fingerprint, profile.evaluate_config, (judged,))
    segmenter = used_segmenter_key(profile.evaluate_config, fingerprint)
    keys = [base, *controls.values(), segmenter, sweep, promotion_key(sweep, profile.promotion)]
    for key in keys:
        lake.write(seal_key(key), json.dumps({"format": 1}).encode())
    return keys


def test_with_no_lake_everything_would_run(lake):
    stages = plan(None, _profile(lake))
    assert set(_status(stages).values()) == {"would run"}
    assert stages[0].why == "6 new cases"
    assert all(stage.key == "" for stage in stages)
    ingest, *models = stages
    assert (ingest.pending, ingest.cost.pull_bytes) == (6, 0)
    assert ingest.cost.cpu_hours == 6 * UNIT_COSTS.cases["demo"].seconds / 3600
    assert all(stage.cost.cpu_hours > 0 for stage in models[:-1])


def test_a_plan_costs_what_is_not_done(ingested):
    stages = plan(ingested, _profile(ingested))
    assert stages[0].cost == stages[-1].cost == FREE
    assert [stage.cost.store_bytes for stage in stages[1:-1]] == [None] * 5
    more = plan(ingested, _profile(ingested, patients=PATIENTS + 2))[0]
    assert more.cost.cpu_hours == more.pending * UNIT_COSTS.cases["demo"].seconds / 3600 > 0
    keys = _seal_all(ingested, _profile(ingested))
    assert len(keys) == 6
    assert {stage.cost for stage in plan(ingested, _profile(ingested))} == {FREE}


def test_the_table_says_what_is_unknown_and_never_calls_it_nothing(ingested, capsys):
    profile = demo(ingested.url).replace(pretrain="paper-80gb")
    _show_plan(plan(ingested, profile.replace(sources=_profile(ingested).sources)))
    lines = {line.split("  ")[0].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["pretrain"][-4:] == ["bytes", "?", "?", "?"]
    assert lines["in all"][-2:] == ["?", "?"]
    assert lines["promote"][-4:] == ["0", "bytes", "0", "0"]
    assert lines["ingest phantom"][-1] == "1"


def test_a_plan_needs_no_torch(ingested):
    script = (
        "import sys; from flows import cli; cli.run(['plan']); print({'torch', 'prefect', 'dask'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_after_the_ingest_the_models_would_run_and_their_places_are_known(ingested):
    stages = plan(ingested, _profile(ingested))
    assert _status(stages) == {
        "ingest phantom": "unchanged",
        "pretrain": "would run",
        "finetune superresolution": "would run",
        "finetune lesion": "would run",
        "segmenter": "would run",
        "evaluate": "would run",
        "promote": "would run",
    }
    assert all(stage.key.startswith("runs/") for stage in stages[1:])


def test_what_is_sealed_is_unchanged(ingested):
    keys = _seal_all(ingested, _profile(ingested))
    stages = plan(ingested, _profile(ingested))
    assert set(_status(stages).values()) == {"unchanged"}
    assert [stage.key for stage in stages[1:]] == keys


def test_one_more_case_makes_everything_run_again(ingested):
    _seal_all(ingested, _profile(ingested))
    stages = plan(ingested, _profile(ingested, patients=PATIENTS + 1))
    assert set(_status(stages).values()) == {"would run"}
    assert stages[0].why == "1 new, 0 changed, 0 no longer listed"


def test_a_changed_case_is_noticed_by_its_version(ingested):
    rows = phantom_rows()
    commit(ingested, recipe.demo(), {"phantom": [rows[0].replace(version="older"), *rows[1:]]})
    assert plan(ingested, _profile(ingested))[0].why == "0 new, 1 changed, 0 no longer listed"


def test_a_case_refused_by_accident_is_tried_again(ingested):
    rows = phantom_rows()
    broken = rows[0].replace(status="quarantined", reason="unexpected: the worker died", key="", seal="")
    commit(ingested, recipe.demo(), {"phantom": [broken, *rows[1:]]})
    assert plan(ingested, _profile(ingested))[0].status == "would run"


def test_another_config_runs_from_its_stage_on(ingested):
    profile = _profile(ingested)
    _seal_all(ingested, profile)
    lesion = profile.finetune_configs[1]
    longer = lesion.replace(train=lesion.train.replace(iterations=61))
    status = _status(plan(ingested, profile.replace(finetune=(profile.finetune_configs[0], longer))))
    assert status["pretrain"] == status["finetune superresolution"] == "unchanged"
    assert status["finetune lesion"] == status["evaluate"] == "would run"


@pytest.mark.parametrize("gone", range(6))
def test_a_deleted_run_is_run_again(ingested, gone):
    keys = _seal_all(ingested, _profile(ingested))
    ingested.delete(seal_key(keys[gone]))
    stages = plan(ingested, _profile(ingested))
    assert stages[1 + gone].status == "would run"


def test_of_a_sweep_only_the_cells_that_are_not_measured_would_run(ingested):
    profile = _profile(ingested)
    *_, sweep, _ = plan(ingested, profile)  # six tasks in three regions, anomaly in one
    assert sweep.why == "16 of 16 cells are not measured for this data and config"
    manifest = read_manifest(ingested, recipe.demo())
    base = pretrain_key(manifest.fingerprint, profile.pretrain_config)
    controls = {c.task: finetune_key(manifest.fingerprint, c, base) for c in profile.finetune_configs}
    judged = (Checkpoint(base=base, controls=controls),)
    cells = cells_of(profile.evaluate_config, judged, manifest)
    for key in list(cell_keys(cells, profile.evaluate_config, manifest))[:5]:
        ingested.write(seal_key(key), b"{}")
    *_, sweep, _ = plan(ingested, profile)
    assert sweep.why == "11 of 16 cells are not measured for this data and config"
