"""The command: what it prints where, its exit codes, and one sentence for what a user can mend."""

import json
import subprocess
import sys

import pytest
from command import call

from flows import cli

KEYS = {"source", "case", "patient", "status", "reason", "url", "origin", "regions", "anatomy", "lesion", "licence",
        "cluster", "split"}  # fmt: skip


def test_cases_prints_one_json_array_and_nothing_else(ingested, capsys):
    code, out, err = call(capsys, "cases", "--lake", ingested.url, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert all(set(row) == KEYS for row in rows)
    assert {row["source"] for row in rows} == {"phantom", "folder"}
    sealed = next(row for row in rows if row["status"] == "sealed")
    refused = next(row for row in rows if row["status"] == "quarantined")
    assert sealed["url"].startswith(ingested.url)
    assert sealed["reason"] is None
    assert sealed["lesion"] is True
    assert sealed["regions"] == ["head_neck", "chest", "abdomen"]
    assert refused["reason"] == "it is an MR image"
    assert refused["url"] is None


def test_cases_verify_quarantines_what_is_not_in_the_lake_as_sealed(ingested, capsys):
    code, out, err = call(capsys, "cases", "--lake", ingested.url, "--json", "--verify")
    rows = json.loads(out)
    assert code == 0
    assert {row["status"] for row in rows} == {"quarantined"}
    assert "quarantined phantom/" in err
    assert "its seal is gone or damaged; ingest its source again" in err


def test_cases_of_a_lake_without_data_is_an_empty_array(lake, capsys):
    code, out, _ = call(capsys, "cases", "--lake", lake.url, "--json")
    assert (code, json.loads(out)) == (0, [])


def test_cases_reads_the_recipe_that_the_lake_has(ingested, capsys):
    _, unnamed, _ = call(capsys, "cases", "--lake", ingested.url, "--json")
    _, demo, _ = call(capsys, "cases", "--lake", ingested.url, "--recipe", "demo", "--json")
    _, paper, _ = call(capsys, "cases", "--lake", ingested.url, "--recipe", "paper", "--json")
    assert json.loads(unnamed) == json.loads(demo)
    assert json.loads(paper) == []


def test_sources_tells_all_of_one_as_it_is_written(capsys):
    code, out, _ = call(capsys, "sources", "ct-rate", "word")
    assert code == 0
    assert "'meddiff[huggingface]'" in out.replace("\n", " ")
    assert "WORD-V0.1.0.zip" in out
    assert "msd-lung" not in out
    code, out, err = call(capsys, "sources", "wrod")
    assert (code, out) == (2, "")
    assert "unknown source 'wrod'" in err


def test_sources_json_is_the_catalogue(capsys):
    code, out, _ = call(capsys, "sources", "--json")
    names = {info["name"] for info in json.loads(out)}
    assert code == 0
    assert {"phantom", "folder"} <= names


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cases", "--lake", "{tmp}/nowhere"], "there is no lake at {tmp}/nowhere"),
        (["cases", "--lake", "ftp://host/lake"], "ftp://host/lake is no lake"),
        (["ingest", "folder", "--path", "{tmp}/empty"], "{tmp}/empty holds no CT"),
        (["ingest", "folder", "--path", "{tmp}/nowhere"], "{tmp}/nowhere is not there"),
        (["ingest", "phantom", "--lake", "{tmp}/file"], "{tmp}/file"),
        (["run", "--data", "{tmp}/nowhere"], "{tmp}/nowhere is no directory"),
        (["pretrain", "--lake", "{tmp}/nowhere"], "there is no lake at {tmp}/nowhere"),
        (["pretrain", "--set", "train.nope=1", "--lake", "{lake}"], "'train.nope=1' names no field"),
        (["pretrain", "--set", "train.iterations=-1", "--lake", "{lake}"], "train.iterations"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_1(arguments, sentence, tmp_path, lake, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    names = {"tmp": tmp_path, "lake": lake.url}
    code, out, err = call(capsys, *(argument.format(**names) for argument in arguments))
    assert code == 1
    assert out == ""
    assert err.startswith("meddiff: ")
    assert sentence.format(**names) in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ingest", "no-such-source"], "unknown source 'no-such-source'; known: "),
        (["ingest"], "SOURCE"),
        (["ingest", "idc:lidc_idr"], "lidc_idri"),
        (["ingest", "folder"], "needs --path"),
        (["ingest", "phantom", "--path", "x"], "--path belongs to source 'folder'"),
        (["ingest", "phantom", "--recipe", "coarse"], "'coarse' is not one of"),
        (["ingest", "phantom", "word", "--only", "x"], "--only belongs to one source, but phantom, word are named"),
        (["ingest", "phantom", "--force", "--since", "2026-01-01"], "give it or --since, not both"),
        (["ingest", "phantom", "--since", "yesterday"], "Invalid value for '--since'"),
        (["run", "--profile", "huge"], "'huge' is not"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["cases", "--jsn"], "No such option"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_every_verb_explains_itself(capsys):
    verbs = [command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands]
    assert {
        "denoise",
        "detect",
        "inpaint",
        "superresolve",
        "synthesize",
        "generate-lesion",
        "run",
        "ingest",
        "cases",
        "sources",
        "pretrain",
        "finetune",
        "evaluate",
        "promote",
        "plan",
        "diff",
        "gc",
        "compare",
        "up",
        "down",
        "doctor",
        "bench",
    } == set(verbs)
    for verb in verbs:
        code, out, _ = call(capsys, verb, "--help")
        assert code == 0
        assert "Usage: meddiff" in out


def test_an_unchanged_ingest_starts_no_prefect(ingested, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flows.ingest", None)
    code, out, _ = call(capsys, "ingest", "phantom", "--patients", 6, "--recipe", "demo", "--lake", ingested.url)
    assert code == 0
    assert "phantom: unchanged: 6 cases, nothing was transferred" in out
    assert "6 cases sealed, 0 quarantined; unchanged" in out


def test_an_ingest_that_is_asked_for_unchanged_cases_only_starts_no_prefect(ingested, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flows.ingest", None)
    phantom = ("ingest", "phantom", "--recipe", "demo", "--lake", ingested.url, "--patients")
    code, out, _ = call(capsys, *phantom, 7, "--only", "phantom-0000-0")
    assert code == 0
    assert "6 cases sealed, 0 quarantined; unchanged" in out
    code, _, err = call(capsys, *phantom, 6, "--only", "phantom-9999-0", "--force")
    assert code == 1
    assert "source phantom lists no case phantom-9999-0" in err


def test_plan_json_names_every_stage(ingested, capsys):
    code, out, _ = call(capsys, "plan", "--lake", ingested.url, "--json")
    stages = json.loads(out)
    assert code == 0
    assert [stage["stage"] for stage in stages] == [
        "ingest phantom",
        "pretrain",
        "finetune superresolution",
        "finetune lesion",
        "segmenter",
        "evaluate",
        "promote",
    ]


def test_a_sweep_that_is_not_there_promotes_nobody(ingested, capsys):
    code, out, err = call(capsys, "promote", "0" * 32, "--recipe", "demo", "--lake", ingested.url)
    assert (code, out) == (1, "")
    assert f"runs/evaluate/{'0' * 32} is no finished sweep" in err.replace("\n", " ").replace("  ", " ")


def test_plan_of_a_lake_that_is_not_there_makes_none(tmp_path, capsys):
    code, out, _ = call(capsys, "plan", "--lake", tmp_path / "new", "--json")
    assert code == 0
    assert {stage["status"] for stage in json.loads(out)} == {"would run"}
    assert not (tmp_path / "new").exists()


def test_a_relative_lake_becomes_absolute_for_every_process(tmp_path, monkeypatch, capsys):
    import os

    monkeypatch.chdir(tmp_path)
    call(capsys, "plan", "--lake", "here/lake", "--json")
    assert os.environ["MEDDIFF_LAKE"] == str(tmp_path / "here" / "lake")


def test_doctor_tells_what_is_there(lake, capsys, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    code, out, err = call(capsys, "doctor", "--json")
    checks = {check["what"]: check for check in json.loads(out)}
    assert (code, err) == (0, "")
    assert {"Python", "memory", "disk", "GPU", "packages", "lake", "Prefect", "Dask", "MLflow", "services",
            "TotalSegmentator"} <= set(checks)  # fmt: skip
    assert all(set(check) == {"what", "status", "found", "remedy"} for check in checks.values())
    assert checks["lake"]["found"] == f"{lake.url} (id {lake.id})"
    assert checks["Python"] == {"what": "Python", "status": "ok", "found": sys.version.split()[0], "remedy": ""}


def test_doctor_fails_only_for_what_every_run_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, _ = call(capsys, "doctor", "--lake", tmp_path / "lake")
    assert code == 0
    assert "warning  MLflow" in out
    assert "what to do" in out
    assert "unset MLFLOW_TRACKING_URI" in out
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    (tmp_path / "file").touch()
    code, out, _ = call(capsys, "doctor", "--lake", tmp_path / "file" / "lake")
    assert code == 1
    assert "MISSING  lake: writing" in out
    assert "MISSING  Prefect " in out
    assert all(len(line) <= 120 for line in out.splitlines())


def test_doctor_where_all_is_well_has_no_column_of_remedies(lake, capsys, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "what to do" not in out


def test_the_command_imports_neither_prefect_nor_torch():
    script = "import sys, flows.cli; print(sorted({'prefect', 'torch', 'monai', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
