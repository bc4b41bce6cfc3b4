"""Settings: read from the environment, every path absolute."""

import pytest

from infra.settings import Settings, absolute_url, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    names = ("HOME", "LAKE", "DASK_ADDRESS", "WORKERS")
    for name in [f"MEDDIFF_{name}" for name in names] + ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


def test_defaults_lie_in_the_state_folder_beside_the_user(tmp_path):
    settings = load_settings()
    assert settings.home == tmp_path / ".meddiff"
    assert settings.lake_url == str(tmp_path / ".meddiff/lake")
    assert settings.mlflow_uri == f"sqlite:///{tmp_path}/.meddiff/mlflow.db"
    assert settings.workers == 0


def test_the_users_home_is_not_the_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/root")
    assert load_settings().home == tmp_path / ".meddiff"


def test_the_environment_decides(monkeypatch, tmp_path):
    values = {
        "MEDDIFF_HOME": "state",
        "MEDDIFF_LAKE": "s3://bucket/lake/",
        "MEDDIFF_WORKERS": "3",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.home == tmp_path / "state"
    assert settings.lake_url == "s3://bucket/lake"
    assert settings.workers == 3
    assert settings.s3_endpoint == "http://127.0.0.1:9000"
    assert settings.s3_region == "eu-west-1"
    assert settings.mlflow_uri == "http://127.0.0.1:5000"


def test_fields_can_be_given_by_name():
    assert Settings(home="/srv/meddiff", s3_region="x").s3_region == "x"


def test_a_relative_lake_becomes_absolute(tmp_path):
    assert absolute_url("data/../lake") == str(tmp_path / "lake")
    assert absolute_url("s3://bucket/a/") == "s3://bucket/a"
