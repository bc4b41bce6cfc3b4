"""`meddiff bench`: runs the benchmarks of a checkout, and says so where it cannot."""

import json
import sys
import time
from functools import partial

import pytest

from flows import cli, cli_bench


def _call(capsys, *arguments):
    code = cli.run(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_registered_benchmark_is_there(real_data):
    sys.path.insert(0, str(cli_bench.CHECKOUT / "tests"))
    from benchmarks import BENCHMARKS

    for name in BENCHMARKS:
        module = cli_bench._benchmark(name)
        assert callable(module.run)
        assert module.TITLE.startswith(name)


@pytest.mark.server
def test_store_compares_formats_and_readers(real_data, capsys):
    code, out, _ = _call(capsys, "store", "--data", real_data, "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len({tuple(row) for row in rows}) == 1
    assert {row["by"] for row in rows} == {"ours", "zarr", "tensorstore", "blosc2"}
    default, *others = rows
    assert {value for key, value in default.items() if key.startswith("x_")} == {1.0}
    assert all(row["MB"] > 0 and row["write_s"] > 0 and row["ms_32"] > 0 for row in rows)
    asked = {(row["format"], row["by"]): row["requests"] for row in others if row["requests"]}
    assert asked["lz4-shuffle 32/128", "zarr"] > 2 * asked["lz4-shuffle 64/256", "zarr"]
    assert asked["lz4-shuffle 64/256", "tensorstore"] < asked["lz4-shuffle 64/256", "zarr"]
    assert 0 < default["requests"] <= asked["lz4-shuffle 64/256", "tensorstore"]


@pytest.mark.slow
def test_denoise_judges_patients_that_it_was_not_trained_on(real_data, capsys):
    code, out, _ = _call(capsys, "denoise", "--data", real_data, "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {row["patient"] for row in rows} == {"head-neck__pt_7"}
    assert {row["noise"] for row in rows} == {"white", "correlated"}
    assert {"noisy", "gaussian", "tv", "nlm", "ours-mean", "ours-restore"} <= {row["method"] for row in rows}
    noisy = [row["psnr_db"] for row in rows if row["method"] == "noisy"]
    assert all(22 < value < 23.5 for value in noisy)  # 10·log10(2²/.15²) = 22.5


@pytest.mark.slow
def test_sample_measures_both_sides_and_says_what_is_extrapolated(real_data, capsys):
    code, out, _ = _call(capsys, "sample", "--data", real_data, "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    of = {(row["task"], row["voxels"], row["method"], row["steps"]): row for row in rows}
    assert len(of) == len(rows) == 2 * (2 + 7)
    for (task, voxels, method, _), row in of.items():
        naive = of[task, voxels, "naive", 10]
        assert row["x_faster"] == pytest.approx(naive["s"] / row["s"])
        assert method == "naive" or row["evaluations"] < naive["evaluations"]
        assert (row["quality"] is not None) == (voxels == "24 x 24 x 24")
    assert of["denoising", "24 x 24 x 24", "mean", 1]["quality"] == pytest.approx(22.5, abs=0.5)  # untrained: as noisy


@pytest.mark.slow
def test_finetune_pairs_its_arms_by_seed(real_data, capsys):
    code, out, _ = _call(capsys, "finetune", "--data", real_data, "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [(row["task"], row["arm"].split(",")[0]) for row in rows] == [
        (task, arm) for task in ("superresolution", "lesion") for arm in ("fine-tuned", "scratch", "scratch")
    ]
    assert all(row["seeds"] == 2 and row["loss"] > 0 for row in rows)
    assert all(row["above_fine_tuned"] == 0 for row in rows if row["arm"] == "fine-tuned")


def test_convert_measures_every_side_in_turn_and_says_where_our_time_goes(real_data, monkeypatch):
    sys.path.insert(0, str(cli_bench.CHECKOUT / "tests"))
    from benchmarks import convert

    def one_after_the_other(work, targets):
        return [work(target) for target in targets]

    recipe = convert.demo()
    sides = {
        "ours": convert.Side(partial(convert.ours, recipe=recipe), one_after_the_other, 2),
        "a peer": convert.Side(lambda folder, target: time.sleep(0.01), one_after_the_other, 2),
    }
    monkeypatch.setattr(convert, "peak_memory", lambda *_: {"peak MB": 7, "allowed MB": 8})
    ours, peer, *parts = convert._volume_rows(real_data / "abdomen-3mm", recipe, 1, sides)
    assert len({tuple(row) for row in (ours, peer, *parts)}) == 1
    assert (ours["ratio"], ours["peak MB"]) == (1.0, 7)
    assert ours["CPU s"] > 0.05 > peer["CPU s"]
    assert peer["ratio"] < 1
    spent = {row["side"].removeprefix("ours in "): row["s a case"] for row in parts}
    assert set(spent) == {*convert.PARTS, "all"}
    assert spent["all"] >= max(spent.values())


def test_rows_become_a_table_with_the_ratios(real_data, capsys, monkeypatch):
    rows = [{"format": "a", "ms": 2.0, "requests": None}, {"format": "b", "ms": 30.5, "requests": 4}]
    module = type("Made", (), {"TITLE": "made: times", "REAL_CTS": True, "run": staticmethod(lambda data, quick: rows)})
    monkeypatch.setattr(cli_bench, "_benchmark", lambda name: module)
    code, out, err = _call(capsys, "made", "--data", real_data)
    assert code == 0
    assert "made: times" in out
    assert "30.5" in out
    assert "None" not in out
    assert "load" in err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nonsense"], 2, "unknown benchmark 'nonsense'; known: "),
        (["store", "--data", "/nowhere"], 1, "/nowhere is not there: name it with --data DIR"),
        (["store"], 1, "no folder of CTs is given: name it"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(arguments, code, sentence, capsys, monkeypatch):
    monkeypatch.delenv("MEDDIFF_TEST_DATA", raising=False)
    got, out, err = _call(capsys, *arguments)
    assert (got, out) == (code, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_an_installed_package_has_no_benchmarks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli_bench, "CHECKOUT", tmp_path)
    code, _, err = _call(capsys, "store")
    assert code == 1
    assert "benchmarks are part of a checkout" in err


def test_a_missing_peer_names_the_extra(capsys, monkeypatch):
    def without(name):
        if name == "benchmarks.store":
            raise ModuleNotFoundError("No module named 'tensorstore'", name="tensorstore")
        return __import__(name)

    monkeypatch.setattr(cli_bench, "import_module", without)
    code, _, err = _call(capsys, "store")
    assert code == 1
    assert "tensorstore is not installed: " in err
    assert "'.[bench]'" in err


@pytest.mark.slow
def test_ingest_measures_orchestration_scaling_manifest_and_real_cts(real_data, capfd):
    code, out, _ = _call(capfd, "ingest", "--data", real_data, "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len({tuple(row) for row in rows}) == 1
    of = {(row["what"], row["units"]): row for row in rows}
    assert {units for what, units in of if what == "orchestration"} == {4, 12}
    assert of["flow, nothing changed", 12]["s"] < of["flow, first, all of it", 12]["s"]
    efficiency = of["phantoms by 2 workers", 2]
    assert efficiency["ratio"] == pytest.approx(of["phantoms by 1 worker", 1]["s"] / efficiency["s"])
    assert all(of[f"manifest: {step}", 300]["s"] > 0 for step in ("commit", "read", "fingerprint", "split", "plan"))
    writes, reads = (of[f"abdomen-3mm: bucket, {kind}", 1]["requests"] for kind in ("writes", "reads"))
    assert 0 < writes < reads


@pytest.mark.slow
def test_sweep_measures_the_lake_and_mlflow_on_sqlite_and_on_postgres(capfd):
    code, out, _ = _call(capfd, "sweep", "--quick", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["where"] for row in rows] == [
        "lake: measured", "lake: measured before", "MLflow on SQLite", "MLflow on Postgres"
    ]  # fmt: skip
    assert all(row["cells"] == 6 and row["ms_a_cell"] > 0 for row in rows)
    assert rows[1]["s"] < rows[0]["s"]
    assert [row["parent_opens_ms"] is None for row in rows] == [True, True, False, False]
