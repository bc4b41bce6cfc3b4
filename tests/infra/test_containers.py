"""The Dockerfile and the compose file: valid, pinned, closed, and naming only what is there. No engine is needed."""

import fnmatch
import re
import subprocess
import sys
import zipfile
from importlib.metadata import distribution

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from wiring import DOCKER, PROJECT, ROOT, SECRET, compose, image, instructions, services

PINNED = re.compile(r"[\w./-]+:(?!latest)[\w.-]+@sha256:[0-9a-f]{64}")
FROM_ENV = re.compile(r"\$\{([A-Z0-9_]+):\?[^}]+\}")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "requirements.lock", "requirements-gpu.lock")
LONG_RUNNING = {name: service for name, service in services().items() if name != "deploy"}


def schema_problems(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_compose_follows_the_compose_specification(tmp_path):
    assert schema_problems(DOCKER / "compose.yaml") == ""
    wrong = {**compose(), "services": {"s3": {**services()["s3"], "port": ["7070"]}}}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    assert "'port' was unexpected" in schema_problems(tmp_path / "compose.yaml")


def test_the_whole_house_is_there():
    assert set(services()) == {
        "postgres", "prefect", "worker", "deploy", "mlflow", "s3", "dask-scheduler", "dask-worker",
    }  # fmt: skip


def test_every_published_port_is_on_loopback():
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    assert "ports" not in services()["postgres"]
    assert compose()["networks"]["store"]["internal"] is True
    assert services()["postgres"]["networks"] == ["store"]


def test_every_service_is_asked_for_its_health_and_waited_for():
    for name, service in LONG_RUNNING.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
    for name, service in services().items():
        for other, wait in service.get("depends_on", {}).items():
            ends = "service_completed_successfully" if other == "deploy" else "service_healthy"
            assert wait["condition"] == ends, f"{name} waits for {other}"
    assert "deploy" in services()["worker"]["depends_on"]
    probed = [s for s in LONG_RUNNING.values() if "PROBE" in s["healthcheck"]["test"][-1]]
    assert len(probed) == 5
    assert all(s["environment"]["PROBE"].startswith("http://127.0.0.1:") for s in probed)


def test_no_secret_is_written_down_and_none_has_a_default():
    text = (DOCKER / "compose.yaml").read_text()
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert FROM_ENV.fullmatch(value), f"{name}: {variable}"
    assert not re.search(r"://[^/@\s]+:[^/@\s]+@", text), "a password in a url"
    assert not re.search(r"\$\{\w+:?-", text), "a variable with a default"
    example = [line for line in (DOCKER / ".env.example").read_text().splitlines() if not line.startswith("#")]
    assert sorted(example) == sorted(f"{name}=" for name in set(FROM_ENV.findall(text)))


def test_the_file_of_secrets_reaches_neither_git_nor_an_image():
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "**/.env" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("name", services())
def test_a_service_is_pinned_closed_and_limited(name):
    service = services()[name]
    if service["image"].startswith("meddiff:"):
        assert service["image"] == image(service["build"]["target"])
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
    else:
        assert PINNED.fullmatch(service["image"])
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & set(service)
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        assert source in compose()["volumes"] or (source.startswith("./") and volume.endswith(":ro"))


def test_every_image_is_built_from_what_is_there():
    kept = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [rest.split()[:-1] for _, word, rest in instructions() if word == "COPY" and "--from=" not in rest]
    named = {source for sources in copied for source in sources if source != "./"}
    assert {source for source in named if not (ROOT / source).exists()} == set()
    assert {source for source in named if not any(source == k or source.startswith(f"{k}/") for k in kept)} == set()
    packages = {source for source in named if "." not in source} - {"LICENSE"}
    assert packages == {"infra", "preprocessing", "training", "evaluation", "flows"}
    assert set(SOURCES) <= named


def test_the_images_are_pinned_and_end_as_nobody_in_particular():
    bases = {rest.partition("=")[0]: rest.partition("=")[2] for _, word, rest in instructions() if word == "ARG"}
    assert all(PINNED.fullmatch(base) for base in bases.values())
    stages: dict[str, list[tuple[str, str]]] = {}
    for stage, word, rest in instructions():
        stages.setdefault(stage, []).append((word, rest))
        if word == "FROM":
            base = rest.split(" AS ")[0]
            assert base in stages or base.strip("${}") in bases, f"{stage} is from {base}"
    assert list(stages)[-1] == "cpu"  # what `docker build` makes without a target
    for target in ("cpu", "gpu", "s3"):
        assert stages[target][-1] == ("USER", "10001:10001")
    assert {service["build"]["target"] for service in services().values() if "build" in service} <= set(stages)


def test_a_build_installs_from_the_locks_and_runs_nothing_from_a_pipe():
    runs = [rest for _, word, rest in instructions() if word == "RUN"]
    for run in runs:
        assert not re.search(r"(curl|wget)[^&;]*\|", run)
        assert "sudo" not in run
        for install in re.findall(r"pip install [^&]+", run):
            assert re.search(r"--no-deps|--constraint requirements\.lock", install), install
        if "apt-get install" in run:
            assert "--no-install-recommends" in run
            assert run.endswith("rm -rf /var/lib/apt/lists/*")
    assert not [rest for _, word, rest in instructions() if word == "ADD"]
    assert any("--requirement requirements-gpu.lock" in run for run in runs)


def needed(extra: str) -> set[str]:
    """The names of all packages that `meddiff[extra]` comes down to here, read from what is installed."""
    here = {**default_environment(), "extra": ""}
    extras = PROJECT["optional-dependencies"].get(extra, [])
    queue = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    found: set[tuple[str, frozenset[str]]] = set()
    while queue:
        wanted = queue.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in found:
            continue
        found.add(key)
        for line in distribution(wanted.name).requires or ():
            further = Requirement(line)
            environments = [{**here, "extra": name} for name in ("", *wanted.extras)]
            if not further.marker or any(further.marker.evaluate(e) for e in environments):
                queue.append(further)
    return {name for name, _ in found}


def locked(lock: str) -> dict[str, str]:
    """The version of every package of a lock."""
    lines = [line.split()[0].split("==") for line in (ROOT / lock).read_text().splitlines() if "==" in line]
    return {canonicalize_name(name): version for name, version in lines}


@pytest.mark.parametrize(("extra", "lock"), [("house", "requirements.lock"), ("", "requirements-gpu.lock")])
def test_a_lock_holds_all_that_its_image_needs(extra, lock):
    versions = locked(lock)
    assert {"prefect", "torch", "mlflow", "zarr"} <= needed(extra)
    assert needed(extra) - set(versions) - {"setuptools"} == set()  # which a virtual environment of Python 3.11 brings
    ours = [Requirement(line) for line in PROJECT["dependencies"]]
    wrong = [str(r) for r in ours if versions[canonicalize_name(r.name)] not in r.specifier]
    assert wrong == []


def test_the_package_brings_its_yaml_files(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {"infra/prefect.yaml", "infra/docker/compose.yaml", "infra/k8s/gpu-pool.json"} <= files
    assert not fnmatch.filter(files, "*/.env")
    assert ("COPY", "infra/prefect.yaml /etc/meddiff/") in [(word, rest) for _, word, rest in instructions()]
