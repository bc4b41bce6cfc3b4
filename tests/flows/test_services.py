"""Real servers on loopback: up, a deployed run to its end, down, and nothing is left."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from flows.params import DEMO_PATIENTS

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800)]

BIN = Path(sys.executable).parent


def _meddiff(*arguments):
    done = subprocess.run([BIN / "meddiff", *arguments], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def _processes_of(home):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MEDDIFF_HOME") == str(home) and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def _says_what_it_did(api, house):
    """The run of `ingest-ct` left its progress, a table of counts and one event of the new data version."""
    artifacts = {found["key"]: found for found in _ask(f"{api}/artifacts/filter", {})}
    assert artifacts["ingest-phantom"]["data"] == 100.0
    (row,) = json.loads(artifacts["ingest-sources"]["data"])
    assert row["source"] == "phantom"
    assert row["listed"] == row["sealed"] == row["converted"] >= DEMO_PATIENTS
    assert row["bytes stored"] > 0
    lake = json.loads((house / "lake" / "lake.json").read_text())["id"]
    wanted = {"filter": {"resource": {"id": [f"meddiff://{lake}/manifest"]}}}
    (event,) = _ask(f"{api}/events/filter", wanted)["events"]
    assert event["event"] == "prefect.asset.materialization.succeeded"
    assert json.loads(_meddiff("diff", "--json"))["after"]["fingerprint"] == event["payload"]["fingerprint"]


def _are_well(api, tracking):
    """The doctor finds the servers, the worker and the deployments, and nothing to be done."""
    env = {**os.environ, "PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": tracking}
    done = subprocess.run([BIN / "meddiff", "doctor", "--json"], capture_output=True, text=True, env=env, check=True)
    checks = {check["what"]: check for check in json.loads(done.stdout)}
    assert checks["Prefect"]["found"] == f"{api}, version {version('prefect')}"
    assert checks["Prefect worker"]["found"] == "1 online in pool `cpu`: meddiff"
    assert checks["Prefect deployments"]["found"] == "all 6 flows"
    assert checks["MLflow"]["found"] == f"{tracking}, version {version('mlflow')}"
    assert {check["status"] for check in checks.values()} == {"ok"}


def _starts_the_pipeline(api, deployment):
    """The new data version has one run of the pipeline, by the automation, a minute from the event; it is cancelled."""
    asked = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    patience = time.monotonic() + 60
    while not (runs := _ask(f"{api}/flow_runs/filter", asked)) and time.monotonic() < patience:
        time.sleep(1)
    (run,) = runs
    assert run["created_by"]["type"] == "AUTOMATION"
    assert run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING")
    lead = datetime.fromisoformat(run["expected_start_time"]) - datetime.fromisoformat(run["created"])
    assert 50 < lead.total_seconds() < 70
    _ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})


@pytest.fixture
def house(tmp_path):
    """A state folder whose services are ended whatever happens."""
    yield tmp_path / "home"
    subprocess.run([BIN / "meddiff", "down"], env=os.environ, check=False, capture_output=True)


def test_up_runs_a_deployment_to_its_end_and_down_leaves_nothing(house):
    said = _meddiff("up")
    state = {s["name"]: s for s in json.loads((house / "services.json").read_text())["services"]}
    api, tracking = state["prefect"]["address"], state["mlflow"]["address"]
    assert f"export PREFECT_API_URL={api}" in said
    assert tracking in said

    deployed = {(d["name"], d["entrypoint"]): d for d in _ask(f"{api}/deployments/filter", {})}
    assert set(deployed) == {
        ("default", f"flows.{module}.{flow}")
        for module, flow in (
            ("ingest", "ingest_ct"), ("pretrain", "pretrain"), ("finetune", "finetune"), ("evaluate", "evaluate"),
            ("pipeline", "pipeline"), ("gc", "gc"),
        )
    }  # fmt: skip
    ingest = deployed["default", "flows.ingest.ingest_ct"]
    (schedule,) = ingest["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("0 2 * * *", False)
    assert ingest["global_concurrency_limit"]["limit"] == 1
    assert ingest["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    with urllib.request.urlopen(f"{tracking}/health", timeout=20) as reply:
        assert reply.status == 200

    assert "Prefect" in _meddiff("up")
    assert {s["pid"] for s in json.loads((house / "services.json").read_text())["services"]} == {
        s["pid"] for s in state.values()
    }

    _are_well(api, tracking)

    run = subprocess.run(
        [BIN / "prefect", "deployment", "run", "ingest-ct/default", "--watch"],
        env={**os.environ, "PREFECT_API_URL": api}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    cases = json.loads(_meddiff("cases", "--json"))
    assert len(cases) >= DEMO_PATIENTS
    assert {case["status"] for case in cases} == {"sealed"}
    assert cases[0]["url"].startswith(str(house / "lake"))
    _says_what_it_did(api, house)
    _starts_the_pipeline(api, deployed["default", "flows.pipeline.pipeline"])
    assert "nothing was transferred" in _meddiff(
        "ingest", "phantom", "--patients", str(DEMO_PATIENTS), "--recipe", "demo"
    )

    _meddiff("down")
    assert _processes_of(house) == []
    assert not (house / "services.json").exists()
