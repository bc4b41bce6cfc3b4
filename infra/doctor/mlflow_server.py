"""MLflow: the server or SQLite file that runs are written to. Work goes on without it, so nothing here is missing."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from packaging.version import InvalidVersion, Version

from infra.doctor.answer import NoAnswerError, answer, basic, json_answer, shown
from infra.doctor.check import Check, told
from infra.doctor.machine import existing
from infra.settings import Settings

WHAT = "MLflow"
LOCK_SECONDS = 2
REVISION = re.compile(r"""^revision(?:: *\w+)? *= *["'](\w+)["']""", re.MULTILINE)
PARENTS = re.compile(r"^down_revision(?:: *[\w |]+)? *= *(.+)$", re.MULTILINE)


def look_at_mlflow(settings: Settings) -> Iterator[Check]:
    """A server that answers and fits, or a file that can be written and has the schema of the installed version."""
    uri = settings.mlflow_uri
    if uri.startswith(("http://", "https://")):
        yield _server(uri.rstrip("/"))
    elif uri.startswith("sqlite:///"):
        yield _file(uri)
    elif "://" in uri and not uri.startswith("file:"):
        yield Check(what=WHAT, status="ok", found=f"{shown(uri)}: a database of its own, not looked into")
    else:
        remedy = f"unset MLFLOW_TRACKING_URI, or make it sqlite:///{settings.home / 'mlflow.db'}"
        yield Check(what=WHAT, status="warning", found=f"{uri}: MLflow writes no folders any more", remedy=remedy)


def _server(uri: str) -> Check:
    place, client = shown(uri), Version(version("mlflow"))
    try:
        answer(f"{uri}/health")
        server = Version(answer(f"{uri}/version").strip())
        json_answer(f"{uri}/api/2.0/mlflow/experiments/search", _headers(), {"max_results": 1})
    except (NoAnswerError, InvalidVersion) as error:
        return Check(what=WHAT, status="warning", found=f"{place} {error}", remedy=_remedy(error, place))
    found = f"{place}, version {server}"
    if server.major != client.major:
        remedy = f"install MLflow {client} on the server, or the server's version here"
        return Check(what=WHAT, status="warning", found=f"{found}; this client is {client}", remedy=remedy)
    return Check(what=WHAT, status="ok", found=found)


def _headers() -> dict[str, str]:
    """What MLflow's own client sends."""
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return basic(f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _remedy(error: Exception, place: str) -> str:
    status = error.status if isinstance(error, NoAnswerError) else -1
    if status in (401, 403):
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN); a server that "
            f"refuses the host's name wants it in --allowed-hosts ({place})"
        )
    if status == 0:
        return "start it, or unset MLFLOW_TRACKING_URI; meanwhile runs are kept under MEDDIFF_HOME as untracked"
    return "see the server's log; meanwhile runs are kept under MEDDIFF_HOME as untracked"


def _file(uri: str) -> Check:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        place = existing(path.parent)
        if os.access(place, os.W_OK):
            return Check(what=WHAT, status="ok", found=f"{path}: none yet, made by the first run")
        remedy = f"let this user write in {place}"
        return Check(what=WHAT, status="warning", found=f"{path} cannot be made", remedy=remedy)
    try:
        revision = revision_of(path)
    except sqlite3.Error as error:
        remedy = f"let this user write it, end what holds it, or move it away if it is damaged: {path}"
        return Check(what=WHAT, status="warning", found=f"{uri}: {told(error)}", remedy=remedy)
    known, newest = schema_revisions()
    if revision in ("", newest):
        return Check(what=WHAT, status="ok", found=uri)
    if revision in known:
        found, remedy = "an older MLflow wrote it", f"copy the file, then run: mlflow db upgrade {uri}"
    else:
        found, remedy = "a newer MLflow wrote it", "pip install -r requirements.lock of the release that wrote it"
    return Check(what=WHAT, status="warning", found=f"{uri}: {found} (schema {revision})", remedy=remedy)


def revision_of(path: Path) -> str:
    """The schema of a store that can be written now; "" where it has no tables yet.

    Raises:
        sqlite3.Error: no database, read-only, or held by another process.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS)) as store:
        store.execute("BEGIN IMMEDIATE")
        store.execute("ROLLBACK")
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return ""
        row = store.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else ""


def schema_revisions() -> tuple[set[str], str]:
    """Every schema that the installed MLflow knows, and its newest; read as text, for importing it takes seconds."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        return set(), ""
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    texts = [file.read_text() for file in folder.glob("*.py")]
    known = {found for text in texts for found in REVISION.findall(text)}
    parents = " ".join(found for text in texts for found in PARENTS.findall(text))
    return known, next((revision for revision in known if revision not in parents), "")
