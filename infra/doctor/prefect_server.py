"""The Prefect server that PREFECT_API_URL names: it answers, fits this client, and has our pool, worker and flows."""

import os
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import yaml
from packaging.version import InvalidVersion, Version

from infra.doctor.answer import NoAnswerError, basic, json_answer, shown
from infra.doctor.check import Check
from infra.processes import running
from infra.services import POOL, PREFECT_FILE
from infra.settings import Settings

DEPLOY = f"prefect --no-prompt deploy --all --prefect-file {PREFECT_FILE}"


def look_at_prefect(settings: Settings) -> Iterator[Check]:
    """Missing where a server is named that flows cannot run with; its worker and deployments are for schedules only."""
    api = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not api:
        yield Check(what="Prefect", status="ok", found=_without(settings))
        return
    try:
        found = Version(str(json_answer(f"{api}/admin/version", _headers())))
    except (NoAnswerError, InvalidVersion) as error:
        yield Check(what="Prefect", status="missing", found=f"{shown(api)} {error}", remedy=_remedy(error, api))
        return
    yield _compatible(api, found, Version(version("prefect")))
    yield from _pool(api)
    yield _deployments(api)


def _without(settings: Settings) -> str:
    server = running(settings.home).get("prefect")
    if server is not None:
        return f"{server.address}, which `meddiff up` started; export PREFECT_API_URL for other commands"
    return "no server named: every run starts one of its own (meddiff up starts one that stays)"


def _headers() -> dict[str, str]:
    """What Prefect's own client sends."""
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        return basic(secret)
    key = os.environ.get("PREFECT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _remedy(error: Exception, api: str) -> str:
    if isinstance(error, NoAnswerError) and error.status in (401, 403):
        return "set PREFECT_API_AUTH_STRING (user:password) or PREFECT_API_KEY as the server wants it"
    if not api.endswith("/api"):
        return f"the address of a server ends in /api: export PREFECT_API_URL={shown(api)}/api"
    return "start it (meddiff up starts one on this machine), or unset PREFECT_API_URL: every run then starts its own"


def _compatible(api: str, server: Version, client: Version) -> Check:
    """Prefect refuses another major version; an older server may refuse what a newer client sends."""
    found = f"{shown(api)}, version {server}"
    if server.major != client.major:
        remedy = f"install Prefect {client} on the server: it takes no clients of another major version"
        return Check(what="Prefect", status="missing", found=f"{found}; this client is {client}", remedy=remedy)
    if server < client:
        remedy = f"install Prefect {client} or newer on the server: an older one may refuse what this client sends"
        return Check(what="Prefect", status="warning", found=f"{found}; this client is {client}", remedy=remedy)
    return Check(what="Prefect", status="ok", found=found)


def _pool(api: str) -> Iterator[Check]:
    what, start = "Prefect worker", f"prefect worker start --pool {POOL} --type process"
    try:
        workers: list[dict[str, Any]] = json_answer(f"{api}/work_pools/{POOL}/workers/filter", _headers(), {})
    except NoAnswerError as error:
        found = f"no work pool `{POOL}`" if error.status == 404 else f"{shown(api)} {error}"
        yield Check(what=what, status="warning", found=found, remedy=f"{start} makes the pool and works for it")
        return
    online = [str(worker.get("name")) for worker in workers if worker.get("status") == "ONLINE"]
    if online:
        yield Check(what=what, status="ok", found=f"{len(online)} online in pool `{POOL}`: {', '.join(online)}")
    else:
        found = f"none of {len(workers)} in pool `{POOL}` is online: deployed and scheduled runs wait"
        yield Check(what=what, status="warning", found=found, remedy=start)


def _deployments(api: str) -> Check:
    what = "Prefect deployments"
    wanted = {(d["name"], d["entrypoint"]) for d in yaml.safe_load(PREFECT_FILE.read_text())["deployments"]}
    try:
        there = json_answer(f"{api}/deployments/filter", _headers(), {})
    except NoAnswerError as error:
        return Check(what=what, status="warning", found=f"{shown(api)} {error}", remedy=DEPLOY)
    lacking = sorted(entrypoint for _, entrypoint in wanted - {(d["name"], d["entrypoint"]) for d in there})
    if lacking:
        return Check(what=what, status="warning", found=f"not there: {', '.join(lacking)}", remedy=DEPLOY)
    return Check(what=what, status="ok", found=f"all {len(wanted)} flows")
