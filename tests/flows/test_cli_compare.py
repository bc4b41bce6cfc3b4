"""`meddiff compare`: sweeps beside the first one, as a table, as JSON and as files, or one sentence why not."""

import json

import pandas as pd
import pytest
from command import call
from compare_samples import put_sweep, row, spread

FIRST, SECOND = "aa11" + "0" * 28, "bb22" + "0" * 28
LEVELS = [30.0, 31.0, 29.5, 30.5, 32.0, 28.0, 31.5]


@pytest.fixture
def measured(lake):
    """A lake with two sweeps of other data, the second one better and without a method."""
    put_sweep(lake, FIRST, [*spread(LEVELS), *spread(LEVELS, "tv"), *spread(LEVELS, metric="ssim", unit="1")])
    better = [level + 0.5 + index / 100 for index, level in enumerate(LEVELS)]
    put_sweep(lake, SECOND, [*spread(better), *spread(LEVELS, metric="ssim", unit="1")], manifest="e" * 32)
    return lake


def test_the_table_says_what_changed_for_whom_and_how_surely(measured, capsys):
    code, out, _ = call(capsys, "compare", "aa11", SECOND, "--lake", measured.url)
    assert code == 0
    assert "aa110000: tiny" in out
    assert f"data differs: {'d' * 32} → {'e' * 32}" in out
    assert "beware: the sweeps are of different data" in out
    ours = next(line for line in out.splitlines() if "ours-mean" in line)
    assert ours.split()[-4:] == ["+0.544]", "0.016", "7", "better"]
    assert "bb220000 has no method 'tv' here: chest sigma=0.15 tv 30.36\n" in out
    assert "ssim" not in out
    assert "Wilcoxon" in out
    assert max(map(len, (line for line in out.splitlines() if "chest" in line))) <= 120


def test_json_is_one_object_with_sweeps_differences_and_rows(measured, capsys):
    code, out, err = call(capsys, "compare", FIRST, SECOND, "--lake", measured.url, "--json", "--all")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [sweep["fingerprint"] for sweep in found["sweeps"]] == [FIRST, SECOND]
    assert found["differences"] == {"data": ["d" * 32, "e" * 32]}
    assert len(found["warnings"]) == 1
    of = {(line["metric"], line["method"]): line for line in found["rows"]}
    assert set(of) == {("psnr", "ours-mean"), ("psnr", "tv"), ("ssim", "ours-mean")}
    assert of["psnr", "tv"]["mean"] is None
    assert (of["psnr", "ours-mean"]["pairs"], of["psnr", "ours-mean"]["verdict"]) == (7, "better")


def test_rows_are_chosen_and_saved(measured, capsys, tmp_path):
    folder = tmp_path / "out"
    arguments = ("--method", "ours-mean", "--task", "denoising", "--all", "--output", folder)
    code, _, err = call(capsys, "compare", FIRST, SECOND, "--lake", measured.url, *arguments)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {"comparison.csv", "comparison.parquet", "comparison.md"}
    assert str(folder / "comparison.md") in err
    saved = pd.read_csv(folder / "comparison.csv")
    assert list(saved["metric"]) == ["psnr", "ssim"]
    assert set(saved["method"]) == {"ours-mean"}


def test_a_third_sweep_is_compared_with_the_first_too(measured, capsys):
    put_sweep(measured, "cc33" + "0" * 28, spread(LEVELS))
    code, out, _ = call(capsys, "compare", FIRST, SECOND, "cc33", "--lake", measured.url)
    assert code == 0
    assert "aa110000 → bb220000" in out
    assert "aa110000 → cc330000" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([FIRST], "alone cannot be compared"),
        ([FIRST, "nothing"], "has no finished sweep 'nothing'"),
        ([FIRST, SECOND, "--task", "anomaly"], "have nothing in common to compare: neither has a number"),
        ([FIRST, "other"], "have nothing in common to compare: other000 has no task 'denoising'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(measured, capsys, arguments, sentence):
    put_sweep(measured, "other" + "0" * 27, [row(1.0, task="anomaly")])
    arguments = [name.ljust(32, "0") if name == "other" else name for name in arguments]
    code, out, err = call(capsys, "compare", *arguments, "--lake", measured.url)
    assert (code, out) == (1, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
