"""What compose and Kubernetes run exists: commands parse, variables are read by somebody, addresses lead somewhere."""

import re
from functools import cache
from importlib import import_module
from urllib.parse import urlsplit

import mlflow.cli
import mlflow.environment_variables
import pytest
import yaml
from botocore.credentials import EnvProvider
from distributed.cli import dask_scheduler, dask_worker
from typer.main import get_command
from wiring import K8S, ROOT, command_lines, containers, image, instructions, of_kind, pods, services, words

from infra.services import QUIET, service_environment
from infra.settings import Settings, load_settings

FOREIGN = {  # read by images that are not ours, by libpq, by Python, or by our own probe
    "postgres": {"POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD"},
    "s3": {"ROOT_ACCESS_KEY_ID", "ROOT_SECRET_ACCESS_KEY"},
}
OTHERS = {"PGPASSWORD", "TMPDIR", "PROBE", "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER"}  # the last by logging.yml
DEPLOYMENTS = (ROOT / "infra" / "prefect.yaml", K8S / "gpu-deployments.yaml")


def parse(line):
    """Parse a command line with the program's own parser, without running it; raises where it is wrong."""
    from flows import cli

    program, *arguments = [word for word in line if word != "--no-prompt"]
    if program == "prefect":
        from prefect.cli._app import _app

        return _app.parse_args(arguments, exit_on_error=False, print_error=False)[1].arguments
    if program == "meddiff":
        return get_command(cli.app).commands[arguments[0]].make_context(arguments[0], arguments[1:]).params
    verb, *rest = arguments
    known = {
        ("mlflow", "server"): mlflow.cli.server,
        ("dask", "scheduler"): dask_scheduler.main,
        ("dask", "worker"): dask_worker.main,
    }
    return known[program, verb].make_context(verb, rest).params


@pytest.mark.parametrize("line", command_lines().values(), ids=command_lines())
def test_a_command_is_one_of_the_program_it_names(line, monkeypatch):
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite://")
    assert parse(line)


def test_a_wrong_command_is_found():
    with pytest.raises(Exception, match="--pul"):
        parse(["prefect", "worker", "start", "--pul=cpu"])
    with pytest.raises(Exception, match="No such option"):
        parse(["dask", "worker", "tcp://scheduler:8786", "--threads=1"])


def test_the_gpu_job_has_a_gpu_for_every_rank():
    (container,) = pods()["gpu-run"]["spec"]["containers"]
    ranks = [word.partition("=")[2] for word in words(container) if word.startswith("train.ranks=")]
    assert [int(r) for r in ranks] == [container["resources"]["limits"]["nvidia.com/gpu"]]


@cache
def prefect_variables():
    """Every variable that a setting of Prefect or of its Kubernetes worker is read from."""
    from prefect.settings import Settings as PrefectSettings
    from prefect_kubernetes.settings import KubernetesSettings

    found = set()

    def walk(node):
        if isinstance(node, dict):
            found.update(node.get("supported_environment_variables", ()))
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    for settings in (PrefectSettings, KubernetesSettings):
        walk(settings.model_json_schema())
    return found


def variables():
    """(who, variable) of everything that is set."""
    for name, service in services().items():
        yield from ((name, variable) for variable in service.get("environment", ()))
    for role, pod in pods().items():
        for container in containers(pod):
            yield from ((role, variable["name"]) for variable in container.get("env", ()))
    for name in ("meddiff", "meddiff-s3"):
        yield from ((name, variable) for variable in of_kind("ConfigMap")[name]["data"])


def test_every_variable_is_read_by_somebody():
    ours = {f"MEDDIFF_{field.upper()}" for field in Settings.model_fields}
    aliases = {"AWS_ENDPOINT_URL", "AWS_REGION", "MLFLOW_TRACKING_URI"}
    assert aliases <= set(re.findall(r'"([A-Z_]+)"', (ROOT / "infra" / "settings.py").read_text()))
    theirs = {EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY}
    servers = set(dir(mlflow.environment_variables)) | {str(p.envvar) for p in mlflow.cli.server.params}
    known = ours | aliases | theirs | servers | prefect_variables() | OTHERS | set(QUIET)
    assert [(who, name) for who, name in variables() if name not in known | FOREIGN.get(who, set())] == []
    assert {name for who, name in variables() if who == "worker"} > aliases


def test_the_image_keeps_its_state_where_compose_mounts_it_and_tells_nobody():
    environment = " ".join(rest for stage, word, rest in instructions() if (stage, word) == ("runtime", "ENV"))
    for name in ("MEDDIFF_HOME=/var/lib/meddiff", "PREFECT_HOME=/var/lib/meddiff/prefect"):
        assert name in environment
    for name in ("PREFECT_SERVER_ANALYTICS_ENABLED", "DO_NOT_TRACK", "MLFLOW_ENABLE_TELEMETRY"):
        assert f"{name}={QUIET[name]}" in environment
    for service in services().values():
        if service["image"] == image("cpu"):
            mounts = [m.split(":")[1 if m in service.get("volumes", ()) else 0]
                      for m in (*service.get("volumes", ()), *service["tmpfs"])]  # fmt: skip
            assert {"/var/lib/meddiff", "/tmp"} <= set(mounts)


def test_a_run_in_the_house_is_told_what_a_run_of_meddiff_up_is_told():
    told = set(service_environment(load_settings(), "http://api", "http://mlflow")) & set(
        services()["worker"]["environment"]
    )
    assert told >= {"MEDDIFF_LAKE", "PREFECT_API_URL", "PREFECT_LOGGING_EXTRA_LOGGERS", "MLFLOW_TRACKING_URI"}


def test_every_address_in_compose_leads_to_a_service_on_a_shared_network():
    listens = {"postgres": 5432, "prefect": 4200, "mlflow": 5000, "s3": 7070, "dask-scheduler": 8786}
    seen = set()
    for name, service in services().items():
        places = [str(value) for value in service.get("environment", {}).values()] + words(service)
        for place in (p for p in places if re.match(r"[\w+]+://[^/]+:\d+", p) and "127.0.0.1" not in p):
            address = urlsplit(place)
            other = services()[address.hostname]
            assert listens[address.hostname] == address.port, f"{name}: {place}"
            assert set(service["networks"]) & set(other["networks"]), f"{name}: {place}"
            seen.add(address.hostname)
    assert seen == set(listens)


def test_every_address_in_kubernetes_leads_to_a_service():
    ports = {name: s["spec"]["ports"][0]["port"] for name, s in of_kind("Service").items()} | {
        "meddiff-scheduler": 8786
    }
    places = [*of_kind("ConfigMap")["meddiff"]["data"].values()]
    places += [v["value"] for pod in pods().values() for c in containers(pod) for v in c.get("env", ()) if "value" in v]
    found = {(urlsplit(p).hostname, urlsplit(p).port) for p in places if re.match(r"[\w+]+://[^/]+:\d+", p)}
    assert found - {("127.0.0.1", 4200)} == set(ports.items())


def test_mlflow_answers_to_the_names_it_is_called_by():
    called = services()["worker"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    assert called == of_kind("ConfigMap")["meddiff"]["data"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    (pod,) = pods()["mlflow"]["spec"]["containers"]
    in_cluster = {v["name"]: v.get("value", "") for v in pod["env"]}["MLFLOW_SERVER_ALLOWED_HOSTS"]
    for allowed in (services()["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"], in_cluster):
        assert {called, "127.0.0.1:5000", "localhost:5000"} <= set(allowed.split(","))
        assert "*" not in allowed


def test_the_buckets_are_made_with_the_object_store():
    (made,) = [rest for stage, word, rest in instructions() if (stage, word) == ("s3", "RUN")]
    lake = urlsplit(services()["worker"]["environment"]["MEDDIFF_LAKE"]).hostname
    (artifacts,) = [urlsplit(word).hostname for word in words(services()["mlflow"]) if word.startswith("s3://")]
    assert {f"/data/{lake}", f"/data/{artifacts}"} == set(re.findall(r"/data/\w+", made))


def test_every_pool_that_a_flow_is_deployed_in_has_a_worker():
    started = {}
    for name, line in command_lines().items():
        if line[:3] == ["prefect", "worker", "start"]:
            given = parse(line)
            started.setdefault(name.split()[0], {})[given["work_pool_name"]] = given["worker_type"]
    pools = [{d["work_pool"]["name"] for d in yaml.safe_load(f.read_text())["deployments"]} for f in DEPLOYMENTS]
    assert started["compose"] == dict.fromkeys(pools[0], "process")
    assert started["k8s"] == {**dict.fromkeys(pools[0], "process"), **dict.fromkeys(pools[1], "kubernetes")}
    made = [parse(line) for line in command_lines().values() if line[:3] == ["prefect", "work-pool", "create"]]
    assert {(m["name"], m["type"]) for m in made} == {*started["compose"].items(), *started["k8s"].items()}


@pytest.mark.parametrize(
    "deployment", yaml.safe_load(DEPLOYMENTS[1].read_text())["deployments"], ids=lambda d: d["entrypoint"]
)
def test_a_gpu_deployment_is_a_flow_with_parameters_that_it_takes(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert (deployment["name"], deployment["pull"]) == ("gpu", [])
    assert flow.validate_parameters(deployment["parameters"])["params"].recipe == "paper"
