"""The house as compose describes it, as real processes: an ingest goes through worker, Dask and bucket."""

import json
import subprocess

import pytest
from house import BIN, ROOT, SECRETS, open_house

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]
TWO_PHANTOMS = 'params={"sources": [{"name": "phantom", "options": {"patients": 2}}], "recipe": "demo"}'
ARTIFACT = """
import mlflow
mlflow.set_experiment("house")
with mlflow.start_run() as run:
    mlflow.log_text("hello", "note.txt")
print(mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt"), run.info.artifact_uri)
"""


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


def test_no_log_and_no_command_line_tells_a_password(house):
    told = [path.name for path in house.folder.glob("*.log") if any(s in path.read_text() for s in _passwords())]
    told += [name for name, process in house.processes.items() if any(s in str(process.args) for s in _passwords())]
    assert told == []


def _passwords():
    return [value for name, value in SECRETS.items() if name.endswith(("PASSWORD", "SECRET_KEY"))]
