"""The Kubernetes manifests: strictly valid, closed, and wired to each other. No cluster is needed."""

import asyncio
import json
import re
from functools import cache
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml
from wiring import DOCKER, K8S, NOT_MANIFESTS, PROJECT, ROLE, SECRET, containers, manifests, of_kind, pods, words

VERSION = "1.37"
POOL = json.loads((K8S / "gpu-pool.json").read_text())
SECRETS = {"meddiff-postgres": {"postgres", "prefect", "mlflow"}, "meddiff-s3": None}  # None: taken whole
NEEDED = [  # who has to reach whom
    ("prefect", "postgres", 5432),
    ("mlflow", "postgres", 5432),
    ("cpu-worker", "prefect", 4200),
    ("gpu-worker", "prefect", 4200),
    ("gpu-run", "prefect", 4200),
    ("cpu-worker", "mlflow", 5000),
    ("gpu-run", "mlflow", 5000),
    ("cpu-worker", "dask-scheduler", 8786),
    ("dask-worker", "dask-scheduler", 8786),
    ("dask-scheduler", "dask-worker", 40000),
    ("dask-worker", "dask-worker", 40000),
]


@cache
def gpu_job(**changes):
    """The job that the GPU pool's worker makes for a flow run, as the worker's own code renders it."""
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    render = KubernetesWorkerJobConfiguration.from_template_and_values
    nobody = PrefectClient("http://127.0.0.1:9/api")  # asked for blocks and variables only, of which there are none
    configuration = asyncio.run(render(POOL, dict(changes), client=nobody))
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="pretrain-now"))
    job = configuration.job_manifest
    for field in ("parallelism", "completions"):  # Prefect wants them in the pod too, where Kubernetes drops them
        assert job["spec"]["template"]["spec"].pop(field) == 1
    return job


def everything():
    """Every pod, the GPU pool's among them."""
    return {**pods(), "gpu-run of the pool": gpu_job()["spec"]["template"]}


def problem(manifest):
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


NAMED = [m for m in manifests() if m["kind"] != "DaskCluster"]


@pytest.mark.parametrize("manifest", NAMED, ids=lambda m: f"{m['kind']}-{next(iter(m['metadata'].values()))}")
def test_a_manifest_is_strictly_valid(manifest):
    assert problem(manifest) == ""
    assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "meddiff"


def test_a_misspelt_field_would_be_found():
    wrong = {**of_kind("Deployment")["prefect"]}
    wrong["spec"] = {**wrong["spec"], "replica": 1}
    assert "replica" in problem(wrong)


def test_the_dask_cluster_is_one_for_the_operator():
    (cluster,) = of_kind("DaskCluster").values()
    assert cluster["apiVersion"] == "kubernetes.dask.org/v1"
    assert set(cluster["spec"]) == {"scheduler", "worker"}
    assert set(cluster["spec"]["scheduler"]) == {"metadata", "spec", "service"}
    assert set(cluster["spec"]["worker"]) == {"metadata", "spec", "replicas"}
    for part in ("scheduler", "worker"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": cluster["spec"][part]["spec"]}
        assert problem(pod) == ""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "scheduler"}}
    assert problem({**service, "spec": cluster["spec"]["scheduler"]["service"]}) == ""
    name = cluster["metadata"]["name"]
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    assert cluster["spec"]["scheduler"]["service"]["selector"] == selector
    assert of_kind("ConfigMap")["meddiff"]["data"]["MEDDIFF_DASK_ADDRESS"] == f"tcp://{name}-scheduler:8786"
    assert {"$(DASK_SCHEDULER_ADDRESS)", "--name=$(DASK_WORKER_NAME)"} <= set(words(*containers(pods()["dask-worker"])))


def test_kustomize_is_told_of_every_file():
    told = yaml.safe_load((K8S / "kustomization.yaml").read_text())
    kept_apart = {*NOT_MANIFESTS, "gpu-job.yaml"}
    assert set(told["resources"]) == {path.name for path in K8S.glob("*.yaml")} - kept_apart
    (pool,) = told["configMapGenerator"]
    assert all((K8S / file).is_file() for file in pool["files"])
    deploy = words(containers(pods()["gpu-worker"])[0])[-1]
    assert set(re.findall(r"/etc/gpu-pool/(\S+)", deploy)) == set(pool["files"])
    registry = f"{told['images'][0]['newName']}:{PROJECT['version']}-gpu"
    assert pods()["gpu-run"]["spec"]["containers"][0]["image"] == registry
    assert POOL["variables"]["properties"]["image"]["default"] == registry


@pytest.mark.parametrize("role", everything())
def test_a_pod_has_no_rights_and_known_needs(role):
    spec = everything()[role]["spec"]
    assert spec["enableServiceLinks"] is False  # else the Service mlflow sets MLFLOW_PORT, which the server reads
    assert spec["automountServiceAccountToken"] is (role == "gpu-worker")
    assert spec["serviceAccountName"] in of_kind("ServiceAccount")
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(everything()[role]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        name, _, tag = container["image"].partition("@")[0].rpartition(":")
        assert tag.startswith(PROJECT["version"]) if name.endswith("meddiff") else "@sha256:" in container["image"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claims = [c["metadata"]["name"] for c in of_kind("StatefulSet")["postgres"]["spec"]["volumeClaimTemplates"]]
        assert mounted <= {volume["name"] for volume in spec["volumes"]} | set(claims)
    if not role.startswith("gpu-run"):
        assert all("readinessProbe" in container for container in spec["containers"])


def test_secrets_are_only_referred_to():
    assert not of_kind("Secret")
    for config in of_kind("ConfigMap").values():
        assert not [name for name in config["data"] if SECRET.search(name)]
    readme = (K8S / "README.md").read_text()
    for pod in everything().values():
        for container in containers(pod):
            for variable in container.get("env", ()):
                assert ("valueFrom" in variable) == bool(SECRET.search(variable["name"])), variable["name"]
                if reference := variable.get("valueFrom"):
                    secret = reference["secretKeyRef"]
                    assert secret["key"] in SECRETS[secret["name"]]
            for source in container.get("envFrom", ()):
                kind, name = next((kind, reference["name"]) for kind, reference in source.items())
                assert name in (SECRETS if kind == "secretRef" else of_kind("ConfigMap"))
    assert all(f"create secret generic {name}" in readme for name in SECRETS)
    assert all(f"--from-literal={key}=" in readme for key in SECRETS["meddiff-postgres"])
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(re.findall(r"--from-literal=(\w+)=", readme))


def test_both_houses_make_their_databases_alike():
    assert of_kind("ConfigMap")["postgres-init"]["data"]["10-databases.sh"] == (DOCKER / "postgres-init.sh").read_text()


def test_a_service_and_a_budget_find_their_pods():
    for name, service in of_kind("Service").items():
        pod = pods()[service["spec"]["selector"][ROLE]]
        ports = {port["name"]: port["containerPort"] for c in containers(pod) for port in c.get("ports", ())}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], name
    for budget in of_kind("PodDisruptionBudget").values():
        assert budget["spec"]["selector"]["matchLabels"][ROLE] in pods()


def selects(selector, role):
    labels = selector.get("matchLabels", {})
    among = [e["values"] for e in selector.get("matchExpressions", ())]
    return labels.get(ROLE, role) == role and all(role in values for values in among)


def one_way(direction, who, other, port):
    """Whether a policy lets `who` send to (egress) or hear from (ingress) another role at a port."""
    key = {"egress": "to", "ingress": "from"}[direction]
    for policy in of_kind("NetworkPolicy").values():
        if selects(policy["spec"]["podSelector"], who):
            for rule in policy["spec"].get(direction, ()):
                peers = [peer["podSelector"] for peer in rule.get(key, ()) if "podSelector" in peer]
                ports = [p["port"] for p in rule.get("ports", ())]
                if any(selects(peer, other) for peer in peers) and (not ports or port in ports):
                    return True
    return False


def test_who_has_to_talk_may_and_nobody_else():
    deny = of_kind("NetworkPolicy")["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    wanted = {(source, target): port for source, target, port in NEEDED}
    listens = {"postgres": 5432, "prefect": 4200, "mlflow": 5000, "dask-scheduler": 8786, "dask-worker": 40000}
    for source in pods():
        for target, port in listens.items():
            ways = one_way("egress", source, target, port), one_way("ingress", target, source, port)
            assert ways == ((source, target) in wanted,) * 2, f"{source} to {target}"
    assert {port for *_, port in NEEDED} == set(listens.values())


def test_only_what_reads_buckets_and_the_workers_master_reach_outside():
    outside = {name for name, policy in of_kind("NetworkPolicy").items() if "ipBlock" in str(policy["spec"])}
    assert outside == {"to-buckets-and-archives"}
    (rule,) = of_kind("NetworkPolicy")["to-buckets-and-archives"]["spec"]["egress"]
    assert rule["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]  # a cloud's credentials
    reads = of_kind("NetworkPolicy")["to-buckets-and-archives"]["spec"]["podSelector"]
    with_bucket = {role for role, pod in pods().items() if "'secretRef': {'name': 'meddiff-s3'}" in str(pod)}
    assert {role for role in pods() if selects(reads, role)} == with_bucket


def test_the_gpu_pool_makes_a_job_of_one_node():
    job = gpu_job(gpus=4, shared_memory="16Gi")
    assert problem(job) == ""
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["backoffLimit"]) == ("Indexed", 1, 0)
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}} in pod["volumes"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert job["spec"]["template"]["metadata"]["labels"][ROLE] == "gpu-run"
    named = {v["name"]: v["value"] for v in container["env"]}
    assert named["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"


def test_every_variable_of_the_gpu_pool_is_used():
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(POOL["job_configuration"])))
    assert used == set(POOL["variables"]["properties"])


def test_the_pools_job_and_the_template_are_one_job_but_for_their_sizes():
    ours, made = pods()["gpu-run"]["spec"], gpu_job()["spec"]["template"]["spec"]
    varies = {"containers", "volumes"}
    assert {k: v for k, v in ours.items() if k not in varies} == {k: v for k, v in made.items() if k not in varies}
    for part in ("securityContext", "volumeMounts", "envFrom"):
        assert ours["containers"][0][part] == made["containers"][0][part]


def test_the_gpu_workers_rights_are_jobs_and_their_pods():
    (role,) = of_kind("Role").values()
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {("jobs", "create"), ("jobs", "delete"), ("pods", "watch"), ("pods/log", "get")} <= granted
    assert not [pair for pair in granted if "*" in pair or pair[0] in ("secrets", "pods/exec")]
    assert not of_kind("ClusterRole")
    assert not of_kind("ClusterRoleBinding")
