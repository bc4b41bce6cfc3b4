"""MLflow, and the only place that knows it: runs with batched metrics, data versions, pictures, tables and models.

Tracking is a witness, never a condition: what a server does not take now is kept in order and offered again, and what
it never took is named in a warning and written as JSON under `<home>/untracked/`. A dead server costs seconds.
Importing this module is cheap; mlflow itself is imported on first use.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.config import Config
from infra.outbox import Outbox, RefusedError, first_line
from infra.params import flatten
from infra.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

MODEL = "meddiff-fm"
FINGERPRINT_TAG = "meddiff.fingerprint"
BATCH_PARAMS, BATCH_METRICS = 100, 900
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class DataVersion:
    """A data set as a run's input: its name, the manifest's fingerprint as digest, and where it lies."""

    name: str
    fingerprint: str
    url: str


@dataclass(frozen=True)
class _Checkpoint:
    model: str
    url: str
    fingerprint: str
    params: dict[str, str]
    step: int


class TrackedRun:
    """One MLflow run. No method raises on the server's account, nor waits for one that is known to be away."""

    def __init__(self, settings: Settings, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        self.run_id = ""
        self.experiment, self.name, self.tags = settings.of_team(experiment), name, dict(tags)
        self._settings = settings
        self._experiment_id = ""
        self._outbox = Outbox(f"MLflow at {settings.mlflow_uri}, run {name!r}")

    def log_params(self, params: Config | Mapping[str, Any]) -> None:
        """Parameters, flattened to dotted keys."""
        for batch in _batches(flatten(params), BATCH_PARAMS):
            self._put("parameters", lambda client, run, batch=batch: _send_batch(client, run, params=batch), batch)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Metrics of one step, stamped now and sent in one batch."""
        at = int(time.time() * 1000)
        for batch in _batches({key: float(value) for key, value in metrics.items()}, BATCH_METRICS):
            self._put(
                f"metrics of step {step}",
                lambda client, run, batch=batch: _send_batch(client, run, metrics=batch, step=step, at=at),
                {**batch, "step": step, "at": at},
            )

    def log_dataset(self, data: DataVersion, context: str = "training") -> None:
        """The data version as an input of the run, its fingerprint as the digest."""
        self._put(f"dataset {data.name}", lambda client, run: _send_dataset(client, run, data, context))

    def log_table(self, frame: "pd.DataFrame", path: str) -> None:
        """A table that MLflow's page shows (`*.json`); for small ones, once per path."""
        self._put(path, lambda client, run: client.log_table(run, frame, path))

    def log_image(self, image: NDArray[np.uint8], path: str) -> None:
        """A picture, uint8, (height, width) or (height, width, 3)."""
        self._put(path, lambda client, run: client.log_image(run, image, path))

    def log_file(self, data: str | bytes, path: str) -> None:
        """Any file of the run, from memory: text, HTML, Parquet."""
        content = data.encode() if isinstance(data, str) else data
        self._put(path, lambda client, run: _send_file(client, run, content, path))

    def log_model(self, url: str, *, name: str = MODEL, params: Config | Mapping[str, Any] | None = None,
                  fingerprint: str = "", step: int = 0, alias: str = "") -> None:  # fmt: skip
        """A checkpoint that stays in the lake, as a version of the registered model `name`: once per fingerprint.

        Args:
            url: the run's folder in the lake; its last part is the fingerprint unless one is given.
        """
        known = fingerprint or url.rstrip("/").rsplit("/", 1)[-1]
        checkpoint = _Checkpoint(self._settings.of_team(name), url, known, flatten(params or {}), step)
        self._put(f"model {name} ({url})", lambda client, run: _send_model(client, self, checkpoint, alias))

    def log_model_input(self, fingerprint: str, name: str = MODEL) -> None:
        """A registered checkpoint as an input of the run, one click away on its page; nothing if it is not there."""
        of_team = self._settings.of_team(name)
        self._put(
            f"input {name} {fingerprint}", lambda client, run: _send_model_input(client, run, of_team, fingerprint)
        )

    def log_child(self, name: str, *, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """One finished child run: created, filled by one batch, ended."""
        values = {"params": flatten(params), "metrics": dict(metrics)}
        self._put(f"child {name}", lambda client, run: _send_child(client, self, name, **values), values)

    def _put(self, label: str, send: "Callable[[MlflowClient, str], object]", values: dict | None = None) -> None:
        self._outbox.put(label, lambda: self._send(send), values)

    def _send(self, send: "Callable[[MlflowClient, str], object]") -> None:
        client = _client(self._settings.mlflow_uri, self._settings.home)
        if not self.run_id:
            self._experiment_id = _experiment_id(client, self.experiment, self._settings)
            self.run_id = _open_run(client, self._experiment_id, self)
        try:
            send(client, self.run_id)
        except Exception as error:
            if getattr(error, "error_code", "") in _REFUSALS:
                raise RefusedError(first_line(error)) from error
            raise

    def _close(self, status: str) -> None:
        self._outbox.quiet_until = 0.0
        self._put("end of the run", lambda client, run: client.set_terminated(run, status))
        path = self._settings.home / "untracked" / f"{self.experiment}-{time.time_ns()}.json"
        about = {"experiment": self.experiment, "name": self.name, "run_id": self.run_id, "tags": self.tags}
        self._outbox.save_undelivered(path, about)


@contextmanager
def tracked_run(experiment: str, name: str, *, params: Config | Mapping[str, Any] | None = None,
                tags: Mapping[str, str] | None = None, dataset: DataVersion | None = None, context: str = "training",
                fingerprint: str = "", parent_run_id: str = "",
                settings: Settings | None = None) -> Generator[TrackedRun]:  # fmt: skip
    """One MLflow run around a block: finished, failed or killed as the block ends.

    A `fingerprint` becomes a tag, and a run of the same fingerprint that did not finish is continued, so that a resumed
    training has one curve. Errors of the block pass through; errors of MLflow do not arise.
    """
    labels = {**(tags or {}), FINGERPRINT_TAG: fingerprint, "mlflow.parentRunId": parent_run_id}
    run = TrackedRun(settings or load_settings(), experiment, name, {key: tag for key, tag in labels.items() if tag})
    run.log_params(params or {})
    if dataset:
        run.log_dataset(dataset, context)
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run._close(status)


def find_run(experiment: str, fingerprint: str, settings: Settings | None = None) -> str:
    """The id of the newest finished run of that fingerprint; "" if there is none or no server answers."""
    with _asking(settings, "whether the run is there") as client:
        if found := client.get_experiment_by_name(_of_team(experiment, settings)):
            return _search(client, found.experiment_id, fingerprint, "=")
    return ""


def run_fingerprint(run_id: str, settings: Settings | None = None) -> str:
    """The fingerprint of a run by its id; "" if there is no such run, it has none, or no server answers."""
    with _asking(settings, f"what run {run_id} is") as client:
        from mlflow import MlflowException

        with suppress(MlflowException):
            return str(client.get_run(run_id).data.tags.get(FINGERPRINT_TAG, ""))
    return ""


def finished_fingerprints(experiment: str, settings: Settings | None = None) -> list[str]:
    """The fingerprints of an experiment's finished runs, the newest first; empty if no server answers."""
    with _asking(settings, f"the runs of {experiment}") as client:
        if found := client.get_experiment_by_name(_of_team(experiment, settings)):
            rule, order = "attributes.status = 'FINISHED'", ["attributes.start_time DESC"]
            runs = client.search_runs([found.experiment_id], rule, max_results=1000, order_by=order)
            return list(dict.fromkeys(filter(None, (run.data.tags.get(FINGERPRINT_TAG, "") for run in runs))))
    return []


def promote(fingerprint: str, *, reason: str, alias: str = "champion", name: str = MODEL,
            settings: Settings | None = None) -> int | None:  # fmt: skip
    """Moves an alias of the registered model to that checkpoint's version and writes the reason on it.

    Returns:
        The version's number; None (with a warning) if there is no such version or no server answers.
    """
    name = _of_team(name, settings)
    with _asking(settings, f"alias {alias}") as client:
        if (version := _version_of(client, name, fingerprint)) is not None:
            client.set_registered_model_alias(name, alias, str(version))
            client.set_model_version_tag(name, str(version), f"meddiff.{alias}", reason)
            return version
        _log.warning("alias %s is not set: MLflow has no version of %s for %s", alias, name, fingerprint)
    return None


def registered_url(name: str, *, alias: str = "", number: str = "", settings: Settings | None = None) -> str:
    """Where a registered model's checkpoint lies, by alias or version; "" if there is none or no server answers.

    A name is this team's, unless it has the team's before it already.
    """
    name = _of_team(name, settings)
    with _asking(settings, f"where {name} lies") as client:
        from mlflow import MlflowException

        with suppress(MlflowException):
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
            return str(found.tags.get("url", ""))
    return ""


def aliased_fingerprints(settings: Settings | None = None) -> frozenset[str] | None:
    """The fingerprints of all checkpoints that an alias of a registered model names; None if no server answers."""
    where = settings or load_settings()
    if where.mlflow_uri.startswith("sqlite:///") and not Path(where.mlflow_uri.removeprefix("sqlite:///")).exists():
        return frozenset()
    with _asking(where, "which models have an alias") as client:
        found, page = set(), None
        while page != "":
            models = client.search_registered_models(f"name LIKE '%{MODEL}%'", page_token=page)
            for model in models:
                for number in {str(number) for number in model.aliases.values()}:
                    tags = client.get_model_version(model.name, number).tags
                    found.add(str(tags.get(FINGERPRINT_TAG, "")))
            page = models.token or ""
        return frozenset(found - {""})
    return None


def _of_team(name: str, settings: Settings | None) -> str:
    return (settings or load_settings()).of_team(name)


@cache
def _origin() -> dict[str, str]:
    """What made a run: this version of the package and, in a checkout, its commit. Needs `_client` before it."""
    from mlflow.utils.git_utils import get_git_commit

    origin = {"mlflow.source.name": "meddiff", "mlflow.source.type": "LOCAL", "meddiff.version": version("meddiff")}
    commit = get_git_commit(__file__)
    return origin | ({"mlflow.source.git.commit": commit} if commit else {})


@cache
def _client(uri: str, home: Path) -> "MlflowClient":
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    home.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _asking(settings: Settings | None, what: str) -> "Generator[MlflowClient]":
    where = settings or load_settings()
    try:
        yield _client(where.mlflow_uri, where.home)
    except Exception as error:  # noqa: BLE001 - a witness that is away must not end the work
        _log.warning("MLflow at %s does not answer (%s): %s", where.mlflow_uri, first_line(error), what)


def _batches(values: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    pairs = sorted(values.items())
    return [dict(pairs[start : start + size]) for start in range(0, len(pairs), size)]


def _search(client: "MlflowClient", experiment_id: str, fingerprint: str, finished: str) -> str:
    rule = f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' and attributes.status {finished} 'FINISHED'"
    runs = client.search_runs([experiment_id], rule, max_results=1, order_by=["attributes.start_time DESC"])
    return runs[0].info.run_id if runs else ""


def _experiment_id(client: "MlflowClient", name: str, settings: Settings) -> str:
    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    local = (settings.home / "mlartifacts").as_uri() if settings.mlflow_uri.startswith("sqlite:") else None
    return client.create_experiment(name, artifact_location=local)


def _open_run(client: "MlflowClient", experiment_id: str, run: TrackedRun) -> str:
    fingerprint = run.tags.get(FINGERPRINT_TAG, "")
    if fingerprint and (interrupted := _search(client, experiment_id, fingerprint, "!=")):
        return client.update_run(interrupted, status="RUNNING") or interrupted
    return client.create_run(experiment_id, tags={**run.tags, **_origin()}, run_name=run.name).info.run_id


def _send_batch(client: "MlflowClient", run_id: str, *, params: Mapping[str, str] | None = None,
                metrics: Mapping[str, float] | None = None, step: int = 0, at: int = 0) -> None:  # fmt: skip
    from mlflow.entities import Metric, Param

    values = [Metric(key, value, at, step) for key, value in (metrics or {}).items()]
    client.log_batch(run_id, metrics=values, params=[Param(key, text) for key, text in (params or {}).items()])


def _send_dataset(client: "MlflowClient", run_id: str, data: DataVersion, context: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind = {"http": "http", "https": "http", "s3": "s3"}.get(data.url.split("://")[0], "local")
    source = json.dumps({"url" if kind == "http" else "uri": data.url})
    dataset = Dataset(name=data.name[:500], digest=data.fingerprint[:36], source_type=kind, source=source)
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])


def _send_file(client: "MlflowClient", run_id: str, data: bytes, path: str) -> None:
    target = PurePosixPath(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / target.name
        file.write_bytes(data)
        client.log_artifact(run_id, str(file), str(target.parent) if target.parent != PurePosixPath() else None)


def _send_child(client: "MlflowClient", parent: TrackedRun, name: str, params: dict, metrics: dict) -> None:
    tags = {"mlflow.parentRunId": parent.run_id, **_origin()}
    child = client.create_run(parent._experiment_id, tags=tags, run_name=name).info.run_id
    _send_batch(client, child, params=params, metrics=metrics, at=int(time.time() * 1000))
    client.set_terminated(child)


def _version_of(client: "MlflowClient", model: str, fingerprint: str) -> int | None:
    found = client.search_model_versions(f"name = '{model}' and tags.`{FINGERPRINT_TAG}` = '{fingerprint}'")
    return max((int(version.version) for version in found), default=None)


def _send_model_input(client: "MlflowClient", run_id: str, model: str, fingerprint: str) -> None:
    from mlflow.entities import LoggedModelInput

    if (version := _version_of(client, model, fingerprint)) is not None:
        logged = str(client.get_model_version(model, str(version)).source)
        client.log_inputs(run_id, models=[LoggedModelInput(logged.removeprefix("models:/"))])


def _send_model(client: "MlflowClient", run: TrackedRun, checkpoint: _Checkpoint, alias: str) -> None:
    version = _version_of(client, checkpoint.model, checkpoint.fingerprint) or _new_version(client, run, checkpoint)
    if alias:
        client.set_registered_model_alias(checkpoint.model, alias, str(version))


def _new_version(client: "MlflowClient", run: TrackedRun, checkpoint: _Checkpoint) -> int:
    import mlflow
    from mlflow.entities import LoggedModelOutput

    in_environment = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(run._settings.mlflow_uri)  # `models:/` is resolved against the process's default
    if in_environment is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # set by the line above
    name, tags = checkpoint.model, {"url": checkpoint.url, FINGERPRINT_TAG: checkpoint.fingerprint}
    logged = mlflow.create_external_model(
        name, run.run_id, tags, checkpoint.params, model_type="diffusion", experiment_id=run._experiment_id
    ).model_id
    client.log_outputs(run.run_id, [LoggedModelOutput(logged, step=checkpoint.step)])
    with suppress(mlflow.MlflowException):  # it is there already; anything else fails again below
        client.create_registered_model(name)
    return int(client.create_model_version(name, f"models:/{logged}", run.run_id, tags, model_id=logged).version)
