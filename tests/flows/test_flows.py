"""The flows around fake stages: what is called with what, what is told to Prefect and MLflow, what is left out."""

import json
import sys
import time
import types
import urllib.request
from dataclasses import replace
from uuid import uuid4

import pandas as pd
import pytest
from flow_samples import PATIENTS, phantom_rows
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.testing.utilities import prefect_test_harness

import flows.artifacts
import flows.evaluate
import flows.ingest
import flows.promote
from evaluation.champion import Decision
from evaluation.config import Checkpoint
from evaluation.results import EvaluationRun
from flows import cli
from flows.finetune import finetune
from flows.gc import gc
from flows.ingest import IngestParams, ingest_ct
from flows.params import SourceSpec
from flows.pipeline import pipeline
from flows.pretrain import PretrainParams, pretrain
from flows.profiles import demo
from flows.progress import watched_by
from flows.retention import GcParams
from infra.errors import UserError
from infra.remote import TransientError
from preprocessing import recipe
from preprocessing.ingest import IngestSummary
from preprocessing.ingest_counts import SourceCounts
from preprocessing.manifest import commit, read_manifest
from preprocessing.preview import sheet_key
from training.config import ModelConfig
from training.runs import RunSeal, finetune_key, finished_run, pretrain_key, seal_key, segmenter_key

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def prefect():
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    """One MLflow database: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def tracked(own_home, tracking, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    return tracking


@pytest.fixture
def events(monkeypatch):
    seen = []
    monkeypatch.setattr(flows.artifacts, "emit_event", lambda **event: seen.append(event))
    return seen


@pytest.fixture
def stages(monkeypatch, lake):
    """Fakes of the heavy stages that leave real seals, and the list of their calls."""
    calls = []

    def ingest(place, rules, sources, *, on_progress, **_):
        calls.append(("ingest", sources[0].info.name))
        cases = sources[0].cases()
        for number, _ in enumerate(cases, 1):
            on_progress(sources[0].info.name, number, len(cases), None)
        commit(place, rules, {sources[0].info.name: phantom_rows(sources[0].patients)})
        counts = SourceCounts(source=sources[0].info.name, listed=len(cases), sealed=len(cases), converted=len(cases))
        return IngestSummary(read_manifest(place, rules), (counts,))

    def run(place, key, stage, base, on_log):
        calls.append((stage, key))
        on_log(10, {"loss": 0.5})
        seal = RunSeal(
            stage=stage.split()[0], run=key[-32:], manifest="", config={}, model=ModelConfig(), base=base, step=10,
            checkpoint="c", sha256="", metrics={"loss": 0.5}, history=(),
        )  # fmt: skip
        place.write(seal_key(key), seal.model_dump_json().encode())
        return replace(finished_run(place, key), unchanged=False)

    def fake_pretrain(place, rules, config, start_from, *, on_log, on_picture):
        on_picture(10, b"PNG")
        return run(place, pretrain_key(read_manifest(place, rules).fingerprint, config), "pretrain", "", on_log)

    def fake_finetune(place, rules, config, base, *, on_log, on_picture):
        key = finetune_key(read_manifest(place, rules).fingerprint, config, base.key)
        return run(place, key, f"finetune {config.task}", base.key, on_log)

    def fake_segmenter(place, rules, config, *, on_log, on_picture):
        return run(place, segmenter_key(read_manifest(place, rules).fingerprint, config), "segmenter", "", on_log)

    def fake_evaluate(place, rules, config, checkpoints, *, on_log):
        calls.append(("evaluate", checkpoints[0].base, sorted(checkpoints[0].controls)))
        on_log(6, 6, "report")
        return EvaluationRun("runs/evaluate/x", "x", pd.DataFrame({"value": [1.0]}))

    monkeypatch.setattr(flows.ingest, "ingest", ingest)
    launch = types.SimpleNamespace(pretrain=fake_pretrain, finetune=fake_finetune, train_segmenter=fake_segmenter)
    monkeypatch.setitem(sys.modules, "training.launch", launch)
    monkeypatch.setitem(sys.modules, "evaluation.sweep", types.SimpleNamespace(evaluate=fake_evaluate))
    monkeypatch.setattr(flows.evaluate, "finished_sweep", lambda place, key: None)

    def fake_promote(place, rules, sweep_key, config, settings):
        calls.append(("promote", sweep_key, config))
        judged = Checkpoint(base="runs/pretrain/x")
        return Decision(run="p", sweep=sweep_key, candidate=judged, promoted=True, reason="there was no champion")

    monkeypatch.setattr(flows.promote, "finished_sweep", lambda place, key: object())
    monkeypatch.setattr(flows.promote, "promote_candidate", fake_promote)
    return calls


def _phantom(patients=PATIENTS):
    return (SourceSpec(name="phantom", options={"patients": patients}),)


def _artifacts(kind):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=[kind])))
    return sorted(found, key=lambda artifact: artifact.created)


def test_ingest_commits_the_sources_and_announces_the_new_manifest(lake, stages, events):
    told = []
    with watched_by(lambda *step: told.append(step)):
        summary = ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))
    manifest = read_manifest(lake, recipe.demo())
    counts = SourceCounts(source="phantom", listed=6, sealed=6, converted=6).model_dump(mode="json")
    assert summary == {"manifest": 1, "fingerprint": manifest.fingerprint, "cases": 6, "sources": [counts]}
    assert told[-1] == ("ingest phantom", 6, 6, "")
    assert [event["resource"]["prefect.resource.id"] for event in events] == [f"meddiff://{lake.id}/manifest"]
    assert events[0]["payload"]["fingerprint"] == manifest.fingerprint


def test_an_unchanged_manifest_is_not_announced(ingested, stages, events):
    ingest_ct(IngestParams(lake=ingested.url, sources=_phantom()))
    assert stages == [("ingest", "phantom")]
    assert events == []


def _announced(lake):
    """The events of the lake's manifests that the server has got, once it has got all that were sent before."""
    marker = uuid4()
    emit_event("meddiff.test.marker", {"prefect.resource.id": f"marker.{marker}"})

    def events(resource):
        wanted = {"filter": {"resource": {"id": [resource]}}}
        return client.request("POST", "/events/filter", json=wanted).json()["events"]

    with get_client(sync_client=True) as client:
        until = time.monotonic() + 60
        while not events(f"marker.{marker}"):
            assert time.monotonic() < until, "the server got no event"
            time.sleep(0.2)
        return events(f"meddiff://{lake.id}/manifest")


def test_the_server_has_one_event_of_a_new_manifest_and_none_of_an_unchanged_one(lake, stages):
    first = ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))
    (event,) = _announced(lake)
    assert event["event"] == "prefect.asset.materialization.succeeded"
    assert event["payload"]["fingerprint"] == first["fingerprint"] == read_manifest(lake, recipe.demo()).fingerprint
    assert ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))["fingerprint"] == first["fingerprint"]
    assert len(_announced(lake)) == 1
    more = ingest_ct(IngestParams(lake=lake.url, sources=_phantom(PATIENTS + 1)))
    assert {e["payload"]["fingerprint"] for e in _announced(lake)} == {first["fingerprint"], more["fingerprint"]}


def test_an_accident_in_one_source_stops_neither_the_others_nor_their_event(lake, stages, events, monkeypatch):
    real = flows.ingest.ingest_source.fn

    def ingest_source(spec, *arguments):
        if spec.name == "folder":
            raise ZeroDivisionError
        return real(spec, *arguments)

    monkeypatch.setattr(flows.ingest, "ingest_source", ingest_source)
    folder = SourceSpec(name="folder", options={"path": "/nowhere"})
    with pytest.raises(ZeroDivisionError):
        ingest_ct(IngestParams(lake=lake.url, sources=(folder, *_phantom())))
    assert [event["payload"]["number"] for event in events] == [1]


@pytest.mark.parametrize(
    ("error", "attempts"), [(TransientError("503"), 4), (OSError("reset"), 4), (UserError("no such folder"), 1)]
)
def test_a_source_is_tried_again_unless_the_user_has_to_mend_it(lake, monkeypatch, error, attempts):
    calls = []

    def ingest(*_, **__):
        calls.append(1)
        raise error

    task = flows.ingest.ingest_source
    assert (task.retries, task.retry_delay_seconds) == (3, [10, 60, 300])
    assert task.retry_jitter_factor > 0
    monkeypatch.setattr(flows.ingest, "ingest", ingest)
    monkeypatch.setattr(flows.ingest, "ingest_source", task.with_options(retry_delay_seconds=0))
    with pytest.raises(UserError if isinstance(error, UserError) else OSError):
        ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))
    assert len(calls) == attempts


def test_ingest_leaves_progress_and_a_table_of_counts(lake, stages, events):
    ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))
    progress = [artifact for artifact in _artifacts("progress") if artifact.key == "ingest-phantom"]
    assert progress[-1].data == 100.0
    table = [artifact for artifact in _artifacts("table") if artifact.key == "ingest-sources"][-1]
    (row,) = json.loads(table.data)
    assert row["source"] == "phantom"
    assert (row["listed"], row["sealed"], row["converted"]) == (6, 6, 6)
    assert row["train"] + row["val"] + row["test"] + row["excluded"] == 6


def test_the_table_shows_the_commonest_reasons_and_all_counts():
    reasons = {"it is an MR image": 7, **{f"reason {n}": 1 for n in range(6)}}
    counts = SourceCounts(source="x", listed=20, sealed=7, converted=3, unchanged=17, quarantined=13, reasons=reasons,
                          withdrawn=2, received=10, stored=20)  # fmt: skip
    row = flows.ingest.table_row(counts)
    assert row["reasons"].startswith("7 x it is an MR image; 1 x reason 0")
    assert row["reasons"].endswith("2 more reasons")
    assert (row["withdrawn"], row["bytes received"], row["bytes stored"]) == (2, 10, 20)


def test_the_table_and_a_link_lead_to_the_contact_sheet(lake, stages, events):
    lake.write(sheet_key(recipe.demo(), "phantom"), b"a picture")
    ingest_ct(IngestParams(lake=lake.url, sources=_phantom()))
    link = lake.link(sheet_key(recipe.demo(), "phantom"))
    assert urllib.request.urlopen(link).read() == b"a picture"
    links = [artifact for artifact in _artifacts("markdown") if artifact.key == "contact-sheet-phantom"]
    tables = [json.loads(artifact.data) for artifact in _artifacts("table") if artifact.key == "ingest-sources"]
    assert any(f"]({link})" in artifact.data for artifact in links)
    assert any(row["contact sheet"] == link for table in tables for row in table)


def test_a_source_that_cannot_be_listed_does_not_stop_the_others(lake, stages, events, tmp_path, monkeypatch):
    missing = SourceSpec(name="folder", options={"path": str(tmp_path / "nowhere")})
    real = flows.ingest.ingest

    def ingest(place, rules, sources, **kwargs):
        if sources[0].info.name == "folder":
            sources[0].cases()
        return real(place, rules, sources, **kwargs)

    monkeypatch.setattr(flows.ingest, "ingest", ingest)
    with pytest.raises(UserError, match=r"folder: .*nowhere is not there"):
        ingest_ct(IngestParams(lake=lake.url, sources=(missing, *_phantom())))
    assert len(read_manifest(lake, recipe.demo()).rows) == 6


def test_a_flow_that_is_given_an_identified_folder_by_its_path_reads_nothing_of_it(tmp_path, lake, stages):
    named = SourceSpec(name="folder", options={"path": str(tmp_path / "Mustermann"), "identified": True})
    with pytest.raises(UserError, match=r"given to a flow as path folder:<id>") as error:
        ingest_ct(IngestParams(lake=lake.url, sources=(named, *_phantom())))
    assert "Mustermann" not in str(error.value)
    assert [name for _, name in stages] == ["phantom"]


def test_pretrain_logs_curve_data_and_model_to_mlflow(ingested, stages, tracked):
    from mlflow import MlflowClient

    key = pretrain(PretrainParams(lake=ingested.url, recipe="demo"))
    client = MlflowClient(tracked)
    experiment = client.get_experiment_by_name("pretrain").experiment_id
    (run,) = client.search_runs([experiment], f"tags.url = '{ingested.url}/{key}'")
    assert run.data.metrics["loss"] == 0.5
    assert run.data.params["model.patch"] == "32"
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == read_manifest(ingested, recipe.demo()).fingerprint
    assert client.search_registered_models()[0].name == "meddiff-fm"


def test_a_sealed_training_is_not_launched_again(ingested, stages):
    first = pretrain(PretrainParams(lake=ingested.url, recipe="demo"))
    again = pretrain(PretrainParams(lake=ingested.url, recipe="demo"))
    assert first == again
    assert len(stages) == 1


def test_the_pipeline_calls_every_stage_once_in_order(lake, stages, events):
    profile = demo(lake.url)
    key = pipeline(profile)
    assert [call[0] for call in stages] == [
        "ingest", "pretrain", "finetune superresolution", "finetune lesion", "segmenter", "evaluate", "promote",
    ]  # fmt: skip
    assert stages[-1] == ("promote", "runs/evaluate/x", profile.promotion)
    assert stages[-2] == ("evaluate", stages[1][1], ["lesion", "superresolution"])
    assert key == "runs/evaluate/x"


def test_the_pipeline_stops_before_training_where_a_split_is_too_small(lake, stages, events):
    with pytest.raises(UserError, match="has 0 patients"):
        pipeline(demo(lake.url).replace(sources=_phantom(2)))
    assert [call[0] for call in stages] == ["ingest"]


@pytest.mark.parametrize(
    "flow", [ingest_ct, pretrain, finetune, flows.evaluate.evaluate, pipeline, gc], ids=lambda f: f.name
)
def test_every_flow_has_one_parameter_that_is_a_described_form_with_defaults(flow):
    schema = flow.parameters.model_dump()
    assert list(schema["properties"]) == ["params"]
    assert not schema.get("required")
    model = schema["properties"]["params"]
    reference = model.get("$ref") or model["allOf"][0]["$ref"]
    fields = schema["definitions"][reference.rpartition("/")[2]]["properties"]
    assert all(field.get("description") for field in fields.values())


def test_gc_only_reports_unless_its_parameters_say_so(ingested):
    left = "ct/x/phantom/killed/0123456789abcdef.zarr/zarr.json"
    ingested.write(left, b"{}")
    told = gc(GcParams(lake=ingested.url, grace_days=0))
    assert (told["things"], told["bytes"], ingested.exists(left)) == (1, 2, True)
    assert json.loads(_artifacts("table")[-1].data)[0]["key"] == left.removesuffix("/zarr.json")
    assert gc(GcParams(lake=ingested.url)) == {"things": 0, "bytes": 0, "stayed": 0, "USD a month": 0.0}
    gc(GcParams(lake=ingested.url, grace_days=0, delete=True))
    assert not ingested.exists(left)


def test_flow_names_are_the_deployments():
    names = {flow.name for flow in (ingest_ct, pretrain, finetune, flows.evaluate.evaluate, pipeline, gc)}
    assert names == {"ingest-ct", "pretrain", "finetune", "evaluate", "pipeline", "gc"}


def _command(capsys, *arguments):
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_two_folders_of_one_command_line_after_the_other_are_both_kept(tmp_path, lake, capsys):
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x_seg.nrrd").write_bytes(b"a label without an image")
        code, _, _ = _command(capsys, "ingest", "folder", "--path", tmp_path / place, "--lake", lake.url)
        assert code == 0
    _, out, _ = _command(capsys, "cases", "--lake", lake.url, "--json")
    rows = json.loads(out)
    assert {row["source"] for row in rows} == {"folder"}
    assert len({row["case"] for row in rows}) == 2
    code, out, _ = _command(capsys, "ingest", "folder", "--path", tmp_path / "one", "--lake", lake.url)
    assert "unchanged" in out
    code, _, err = _command(capsys, "ingest", "folder", "--path", tmp_path / "one", "--name", "phantom")
    assert (code, "another source's name" in err) == (2, True)
