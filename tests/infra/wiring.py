"""The container files as data: compose services, Kubernetes manifests and their pods, the Dockerfile's stages."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER, K8S = ROOT / "infra" / "docker", ROOT / "infra" / "k8s"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROLE = "meddiff/role"
SECRET = re.compile(r"(^|_)(PASSWORD|SECRET|KEY|TOKEN)(_|$)|PASSWORD$")
NOT_MANIFESTS = ("kustomization.yaml", "gpu-deployments.yaml")  # for kustomize and for Prefect


@cache
def compose() -> dict[str, Any]:
    """The compose file, its anchors resolved."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


@cache
def manifests() -> tuple[dict[str, Any], ...]:
    """Every Kubernetes object of the folder."""
    files = [path for path in sorted(K8S.glob("*.yaml")) if path.name not in NOT_MANIFESTS]
    return tuple(document for path in files for document in yaml.safe_load_all(path.read_text()))


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """The manifests of a kind, by name."""
    return {m["metadata"].get("name", m["metadata"].get("generateName")): m for m in manifests() if m["kind"] == kind}


def pods() -> dict[str, dict[str, Any]]:
    """Every pod that the manifests lead to, by its role: {metadata, spec}."""
    dask = of_kind("DaskCluster")["meddiff"]["spec"]
    found = [dask["scheduler"], dask["worker"]]
    found += [m["spec"]["template"] for m in manifests() if m["kind"] in ("Deployment", "StatefulSet", "Job")]
    return {pod["metadata"]["labels"][ROLE]: pod for pod in found}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def words(container: dict[str, Any]) -> list[str]:
    """A container's command line, of compose or of Kubernetes."""
    return [*container.get("command", ()), *container.get("args", ())]


def command_lines() -> dict[str, list[str]]:
    """Every command of ours that compose or Kubernetes runs, by who runs it; those of a shell taken apart."""
    ours = {f"compose {name}": words(s) for name, s in services().items() if s["image"] == image("cpu")}
    ours |= {
        f"k8s {role}/{container['name']}": words(container)
        for role, pod in pods().items()
        for container in containers(pod)
        if "meddiff:" in container["image"]
    }
    found = {}
    for name, line in ours.items():
        if line[:2] == ["sh", "-c"]:
            parts = [part.split() for part in line[2].replace("&& exec", "&&").split("&&")]
            found |= {f"{name} {number}": part for number, part in enumerate(parts, 1)}
        else:
            found[name] = line
    return found


def image(target: str) -> str:
    """Our own image as compose names it."""
    return f"meddiff:{PROJECT['version']}-{target}"


def instructions() -> list[tuple[str, str, str]]:
    """The Dockerfile as (stage, instruction, what it says), continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    found, stage = [], ""
    for line in filter(str.strip, text.splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            stage = rest.split(" AS ")[1]
        found.append((stage, instruction, re.sub(r"\s+", " ", rest).strip()))
    return found
