"""Every file, service, object, target and command that the READMEs of docker/ and k8s/ name is there."""

import re
from itertools import pairwise

import pytest
import yaml
from test_house_wiring import DEPLOYMENTS, parse
from wiring import DOCKER, K8S, PROJECT, ROOT, compose, instructions, of_kind, services

READMES = (DOCKER / "README.md", K8S / "README.md")
OWN = ("meddiff", "prefect")


def lines(readme):
    """The command lines of a README, continued ones joined."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```", readme.read_text(), re.M | re.S))
    return [line.split() for line in text.replace("\\\n", " ").splitlines()]


def after(words, *options):
    return [value for option, value in pairwise(words) if option in options]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_files_that_a_readme_names_are_there(readme):
    text = readme.read_text()
    named = set(
        re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:yaml|json|py|sh|lock|example)|Dockerfile|\.env\.example)`", text)
    )
    named |= {path for words in lines(readme) for path in after(words, "-f", "-k")}
    assert len(named) > 5
    assert [name for name in named if not any((place / name).exists() for place in (readme.parent, ROOT))] == []
    table = {name for row in text.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row)}
    assert {path.name for path in readme.parent.iterdir()} - {"README.md", ".env"} <= table


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_images_and_targets_of_a_command_are_ours(readme):
    stages = {stage for stage, *_ in instructions()}
    targets = {target for words in lines(readme) for target in after(words, "--target")}
    assert targets <= stages
    tags = set(re.findall(r"meddiff:(\S+)", "\n".join(" ".join(words) for words in lines(readme))))
    assert tags <= {f"{PROJECT['version']}-{target}" for target in targets}


def test_the_services_of_a_compose_command_are_there():
    told = [words for words in lines(READMES[0]) if words[:2] == ["docker", "compose"]]
    named = {words[words.index("exec") + 1] for words in told if "exec" in words}
    named |= {scale.split("=")[0] for words in told for scale in after(words, "--scale")}
    assert named == {"worker", "dask-worker"}
    assert named <= set(services())
    published = {port.rsplit(":", 1)[0] for s in services().values() for port in s.get("ports", ())}
    assert set(re.findall(r"http://(127\.0\.0\.1:\d+)", READMES[0].read_text())) == published
    assert "the four volumes" in READMES[0].read_text()
    assert len(compose()["volumes"]) == 4


def test_the_objects_of_a_kubectl_command_are_there():
    kinds = {"deployment": "Deployment", "service": "Service", "daskcluster": "DaskCluster"}
    text = "\n".join(map(" ".join, lines(READMES[1])))
    named = re.findall(r" (deployment|service|daskcluster)/([\w-]+)", text)
    assert {kind for kind, _ in named} == set(kinds)
    assert [name for kind, name in named if name not in of_kind(kinds[kind])] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_our_own_commands_inside_a_container_parse(readme):
    known = {
        f"{d['entrypoint'].rsplit('.', 1)[1].replace('_', '-')}/{d['name']}"
        for file in DEPLOYMENTS
        for d in yaml.safe_load(file.read_text())["deployments"]
    }
    inside = [
        words
        for words in lines(readme)
        if re.search(r"(compose.* (exec|run) )|kubectl .*exec|docker run", " ".join(words))
    ]
    ours = [words[next(i for i, word in enumerate(words) if i > 3 and word in OWN) :] for words in inside]
    assert len(ours) >= 2
    for words in ours:
        assert parse(words) is not None
        if words[:3] == ["prefect", "deployment", "run"]:
            assert words[3] in known
