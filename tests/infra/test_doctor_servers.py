"""What the doctor says of Prefect and MLflow: as they should be, away, of another version, and without what is ours."""

import base64
import shutil
import sqlite3
from importlib.metadata import version

import pytest
import yaml
from canned_server import canned_server

from infra.doctor.check import Check
from infra.doctor.mlflow_server import look_at_mlflow, schema_revisions
from infra.doctor.prefect_server import look_at_prefect
from infra.services import PREFECT_FILE
from infra.settings import load_settings
from infra.tracking import tracked_run

PREFECT = version("prefect")
MLFLOW = version("mlflow")
AWAY = "http://127.0.0.1:9"
SECRETS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", *SECRETS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with canned_server() as server:
        yield server


@pytest.fixture
def prefect(server, monkeypatch):
    """A Prefect server's answers when all is well."""
    deployed = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    server.answers = {
        "/api/admin/version": (200, f'"{PREFECT}"'),
        "/api/work_pools/cpu/workers/filter": (200, [{"name": "w", "status": "ONLINE"}]),
        "/api/deployments/filter": (200, [{"name": d["name"], "entrypoint": d["entrypoint"]} for d in deployed]),
    }
    monkeypatch.setenv("PREFECT_API_URL", f"{server.address}/api")
    return server


@pytest.fixture
def mlflow(server, monkeypatch):
    """An MLflow server's answers when all is well."""
    server.answers = {
        "/health": (200, "OK"),
        "/version": (200, MLFLOW),
        "/api/2.0/mlflow/experiments/search": (200, {"experiments": []}),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    return server


def found(look) -> dict[str, Check]:
    return {check.what: check for check in look(load_settings())}


def test_without_a_prefect_server_nothing_is_wrong():
    check = found(look_at_prefect)["Prefect"]
    assert check.status == "ok"
    assert "every run starts one of its own" in check.found


def test_a_prefect_server_with_our_worker_and_flows_is_ok(prefect):
    checks = found(look_at_prefect)
    assert {what: check.status for what, check in checks.items()} == {
        "Prefect": "ok", "Prefect worker": "ok", "Prefect deployments": "ok"
    }  # fmt: skip
    assert checks["Prefect"].found == f"{prefect.address}/api, version {PREFECT}"


def test_a_prefect_server_that_is_away_is_missing_for_every_run_would_fail(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"{AWAY}/api")
    checks = found(look_at_prefect)
    assert list(checks) == ["Prefect"]
    assert checks["Prefect"].status == "missing"
    assert checks["Prefect"].found == f"{AWAY}/api does not answer: Connection refused"
    assert "unset PREFECT_API_URL" in checks["Prefect"].remedy


@pytest.mark.parametrize(
    ("number", "status", "remedy"),
    [("2.20.1", "missing", "no clients of another major version"), ("3.0.0", "warning", "or newer on the server"),
     ("3.999.0", "ok", "")],
)  # fmt: skip
def test_a_prefect_server_of_another_version(prefect, number, status, remedy):
    prefect.answers["/api/admin/version"] = (200, f'"{number}"')
    check = found(look_at_prefect)["Prefect"]
    assert check.status == status
    assert remedy in check.remedy
    assert number in check.found


@pytest.mark.parametrize("workers", [(404, {"detail": "no such pool"}), (200, []), (200, [{"status": "OFFLINE"}])])
def test_without_a_worker_scheduled_runs_wait(prefect, workers):
    prefect.answers["/api/work_pools/cpu/workers/filter"] = workers
    checks = found(look_at_prefect)
    assert checks["Prefect worker"].status == "warning"
    assert "prefect worker start --pool cpu" in checks["Prefect worker"].remedy
    assert checks["Prefect deployments"].status == "ok"


def test_a_deployment_that_is_not_there_is_named(prefect):
    prefect.answers["/api/deployments/filter"][1].pop()
    check = found(look_at_prefect)["Prefect deployments"]
    assert check.status == "warning"
    assert check.found == "not there: flows.gc.gc"
    assert "prefect --no-prompt deploy --all" in check.remedy


def test_an_address_without_api_is_told_to_have_it(prefect, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", prefect.address)
    assert f"export PREFECT_API_URL={prefect.address}/api" in found(look_at_prefect)["Prefect"].remedy


def test_something_else_at_prefects_address_is_missing(prefect):
    prefect.answers["/api/admin/version"] = (200, "<html>hello</html>")
    check = found(look_at_prefect)["Prefect"]
    assert check.status == "missing"
    assert "no JSON" in check.found


def test_prefect_is_asked_with_the_users_login_and_no_secret_is_shown(prefect, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:secret")
    checks = found(look_at_prefect)
    assert set(prefect.login) == {f"Basic {base64.b64encode(b'me:secret').decode()}"}
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:secret@{prefect.address.removeprefix('http://')}/api")
    prefect.login.clear()
    checks |= found(look_at_prefect)
    assert set(prefect.login) == {f"Basic {base64.b64encode(b'me:secret').decode()}"}
    assert not [check for check in checks.values() if "secret" in check.found + check.remedy]
    prefect.answers["/api/admin/version"] = (401, "who are you?")
    assert "PREFECT_API_AUTH_STRING" in found(look_at_prefect)["Prefect"].remedy


def test_an_mlflow_server_of_this_version_is_ok(mlflow):
    assert found(look_at_mlflow)["MLflow"] == Check(
        what="MLflow", status="ok", found=f"{mlflow.address}, version {MLFLOW}"
    )


@pytest.mark.parametrize(
    ("path", "answer", "told", "remedy"),
    [
        ("/health", (503, "not yet"), "answers 503", "see the server's log"),
        ("/version", (200, "1.30.0"), "version 1.30.0; this client is", "the server's version here"),
        ("/version", (200, "<html>"), "<html>", "see the server's log"),
        ("/api/2.0/mlflow/experiments/search", (401, ""), "answers 401", "MLFLOW_TRACKING_USERNAME"),
        ("/health", (403, "Invalid Host header"), "answers 403", "--allowed-hosts"),
    ],
)
def test_an_mlflow_server_that_is_not_well_is_a_warning(mlflow, path, answer, told, remedy):
    mlflow.answers[path] = answer
    check = found(look_at_mlflow)["MLflow"]
    assert check.status == "warning"
    assert told in check.found
    assert remedy in check.remedy


def test_an_mlflow_server_that_is_away_is_a_warning_for_runs_go_on(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    check = found(look_at_mlflow)["MLflow"]
    assert check.status == "warning"
    assert check.found == f"{AWAY} does not answer: Connection refused"
    assert "untracked" in check.remedy


def test_mlflow_is_asked_with_the_users_login_and_no_secret_is_shown(mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert found(look_at_mlflow)["MLflow"].status == "ok"
    assert mlflow.login[-1] == f"Basic {base64.b64encode(b'me:secret').decode()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me:secret@host/mlflow")
    assert found(look_at_mlflow)["MLflow"].found.startswith("postgresql+psycopg2://host/mlflow")


def test_a_folder_as_mlflows_store_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    check = found(look_at_mlflow)["MLflow"]
    assert check.status == "warning"
    assert "sqlite:///" in check.remedy


def test_a_store_that_is_not_there_yet_is_ok_and_is_not_made(tmp_path):
    assert "made by the first run" in found(look_at_mlflow)["MLflow"].found
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file of a store that the installed MLflow wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDDIFF_HOME", str(tmp_path_factory.mktemp("mlflow")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with tracked_run("doctor", "one"):
            pass
        return load_settings().home / "mlflow.db"


@pytest.fixture
def store(written):
    home = load_settings().home
    home.mkdir()
    return shutil.copy(written, home / "mlflow.db")


def test_a_store_that_the_installed_mlflow_wrote_is_ok(store):
    assert found(look_at_mlflow)["MLflow"] == Check(what="MLflow", status="ok", found=f"sqlite:///{store}")
    with sqlite3.connect(store) as opened:
        assert opened.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema_revisions()[1],)]


@pytest.mark.parametrize(
    ("revision", "told", "remedy"),
    [("89d4b8295536", "an older MLflow wrote it", "mlflow db upgrade sqlite:///"),
     ("ffffffffffff", "a newer MLflow wrote it", "of the release that wrote it")],
)  # fmt: skip
def test_a_store_of_another_schema_is_a_warning(store, revision, told, remedy):
    with sqlite3.connect(store) as opened:
        opened.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    check = found(look_at_mlflow)["MLflow"]
    assert check.status == "warning"
    assert told in check.found
    assert remedy in check.remedy


def test_a_store_that_another_process_holds_is_a_warning(store, monkeypatch):
    monkeypatch.setattr("infra.doctor.mlflow_server.LOCK_SECONDS", 0.1)
    holder = sqlite3.connect(store)
    holder.execute("BEGIN EXCLUSIVE")
    check = found(look_at_mlflow)["MLflow"]
    holder.close()
    assert check.status == "warning"
    assert "database is locked" in check.found


def test_a_file_that_is_no_database_is_a_warning(store):
    store.write_bytes(b"no database" * 1000)
    assert "not a database" in found(look_at_mlflow)["MLflow"].found
