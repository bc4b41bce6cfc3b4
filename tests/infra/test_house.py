"""The house as compose describes it, as real processes: an ingest goes through worker, Dask and bucket."""

import json
import subprocess
import time
import urllib.request

import psutil
import pytest
from distributed import Client
from house import BIN, PORTS, ROOT, SECRETS, open_house

from infra.processes import LOOPBACK

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]
TWO_PHANTOMS = 'params={"sources": [{"name": "phantom", "options": {"patients": 2}}], "recipe": "demo"}'
ARTIFACT = """
import mlflow
mlflow.set_experiment("house")
with mlflow.start_run() as run:
    mlflow.log_text("hello", "note.txt")
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"), run.info.artifact_uri)
"""


def _ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def _until(true, seconds):
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, f"not within {seconds} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with open_house(tmp_path_factory.mktemp("house")) as house:
        yield house


def _run(house, *command):
    env = {**house.environments["worker"], "PYTHONPATH": str(ROOT)}
    program, *arguments = command
    done = subprocess.run([BIN / program, *arguments], env=env, cwd=house.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_ingest_goes_through_worker_dask_and_bucket(house):
    _run(house, "prefect", "deployment", "run", "ingest-ct/default", "--watch", "-p", TWO_PHANTOMS)
    cases = json.loads(_run(house, "meddiff", "cases", "--json", "--recipe", "demo"))
    assert {case["status"] for case in cases} == {"sealed"}
    assert all(case["url"].startswith("s3://meddiff/lake/ct/") for case in cases)
    assert len({case["patient"] for case in cases}) == 2
    assert (house.folder / "dask-worker" / "dask").exists()


def test_the_doctor_finds_every_engine_well(house):
    checks = {check["what"]: check for check in json.loads(_run(house, "meddiff", "doctor", "--json"))}
    wanted = ("Prefect", "Prefect worker", "Prefect deployments", "MLflow")
    assert {what: checks[what]["status"] for what in wanted} == dict.fromkeys(wanted, "ok")
    assert {check["status"] for what, check in checks.items() if what.startswith("Dask")} == {"ok"}


def test_artifacts_go_through_the_mlflow_server_into_its_bucket_without_a_key(house):
    env = {key: value for key, value in house.environments["worker"].items() if not key.startswith("AWS")}
    done = subprocess.run([BIN / "python", "-c", ARTIFACT], env=env, cwd=house.folder, capture_output=True, text=True)
    assert "hello mlflow-artifacts:/" in done.stdout, done.stderr


def test_a_cancelled_ingest_leaves_nothing_running_and_goes_on_when_it_is_asked_for_again(house):
    api = f"http://{house.address('prefect')}/api"
    params = {"sources": [{"name": "phantom", "options": {"patients": 6}}], "recipe": "demo"}
    deployment = _ask(f"{api}/deployments/name/ingest-ct/default")["id"]
    run = _ask(f"{api}/deployments/{deployment}/create_flow_run", {"parameters": {"params": params}})["id"]
    with Client(f"tcp://{house.address('dask-scheduler')}", timeout=20) as dask:
        _until(lambda: any(dask.processing().values()), 120)
        _run(house, "prefect", "flow-run", "cancel", run)
        _until(lambda: _ask(f"{api}/flow_runs/{run}")["state_type"] == "CANCELLED", 120)
        _until(lambda: not any(dask.processing().values()), 60)
    worker = psutil.Process(house.processes["worker"].pid)
    _until(lambda: not any("prefect.engine" in child.cmdline() for child in worker.children(recursive=True)), 60)
    before = {case["case"] for case in json.loads(_run(house, "meddiff", "cases", "--json", "--recipe", "demo"))}
    asked = f"params={json.dumps(params)}"
    _run(house, "prefect", "deployment", "run", "ingest-ct/default", "--watch", "-p", asked)
    cases = json.loads(_run(house, "meddiff", "cases", "--verify", "--json", "--recipe", "demo"))
    assert len({case["patient"] for case in cases}) == 6
    assert len(before) < len(cases)
    assert {case["status"] for case in cases} == {"sealed"}


def test_logs_of_runs_are_json_that_name_run_and_source(house):
    lines = [line for line in (house.folder / "worker.log").read_text().splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    assert {line["flow_run_name"] for line in told if line.get("flow_name") == "ingest-ct"}
    assert "ingest phantom" in {line.get("task_run_name") for line in told}


@pytest.mark.parametrize(
    ("service", "path", "metric"),
    [("prefect", "/api/metrics", "python_info"), ("dask-scheduler", "/metrics", "dask_scheduler_workers")],
)
def test_engines_can_be_watched_by_prometheus(house, service, path, metric):
    port = house.ports[service, PORTS[service][-1]]
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=20) as answer:
        assert metric in answer.read().decode()


def test_no_log_and_no_command_line_tells_a_password(house):
    told = [path.name for path in house.folder.glob("*.log") if any(s in path.read_text() for s in _passwords())]
    told += [name for name, process in house.processes.items() if any(s in str(process.args) for s in _passwords())]
    assert told == []


def _passwords():
    return [value for name, value in SECRETS.items() if name.endswith(("PASSWORD", "SECRET_KEY"))]
