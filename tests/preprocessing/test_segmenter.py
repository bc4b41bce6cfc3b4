"""The anatomy stage: a real peer process with the tool's command line, found, checked, run and kept."""

import json
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from store_samples import GEOMETRY, RECIPE, MadeSource, write_image

from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.settings import Settings, load_settings
from preprocessing.case import LabelFile
from preprocessing.convert import convert_case
from preprocessing.ingest import ingest
from preprocessing.inputs import file_checksums, input_of
from preprocessing.manifest import ManifestRow, read_manifest
from preprocessing.recipe import RECIPES, Segmenter
from preprocessing.segmenter import segmentation_key
from preprocessing.store import open_case
from preprocessing.totalsegmentator import find_tool, last_line, look_at_tool

SEGMENTED = RECIPE.replace(segmenter=Segmenter())
PEER = Path(__file__).with_name("threshold_segmenter.py")


@pytest.fixture
def lake(tmp_path) -> Lake:
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def source(tmp_path) -> MadeSource:
    (tmp_path / "data").mkdir()
    return MadeSource(tmp_path / "data", patients=2)


@pytest.fixture
def tool(segmentation_tool) -> Path:
    """The peer, named by the environment."""
    return segmentation_tool


def calls(tool: Path) -> list:
    log = tool.parents[1] / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def convert(source: MadeSource, lake: Lake, recipe=SEGMENTED, **changes) -> ManifestRow:
    source.changes[0] = changes
    return convert_case(source.case(0), source, recipe, lake)


def liver_block(source: MadeSource, id_: int = 5) -> dict:
    """A source that names one block of the image."""
    block = np.zeros(GEOMETRY.shape, np.uint8)
    block[10:20, 15:25, 20:30] = 1
    write_image(source.path / "organ.nrrd", block)
    return {
        "labels": (LabelFile(path=str(source.path / "organ.nrrd"), classes=((1, id_),)),),
        "anatomy": "partial",
        "lesion": (str(source.path / "organ.nrrd"),),
    }


def test_a_case_without_labels_gets_a_full_map_on_its_grid(tool, lake, source):
    row = convert(source, lake)
    assert (row.status, row.reason, row.anatomy) == ("sealed", None, "full")
    case = open_case(lake, row.key)
    image, anatomy = case.read_all("image"), case.read_all("anatomy")
    assert (anatomy[image > -200] == 5).all()
    assert set(np.unique(anatomy)) <= {0, 5, 118}
    assert "anatomy by totalsegmentator 2.18.0, task total" in case.record.findings
    assert case.record.recipe["segmenter"]["version"] == "2.18.0"


def test_the_command_line_is_the_tools_and_its_home_is_private(tool, lake, source):
    convert(source, lake)
    convert(source, lake, SEGMENTED.replace(segmenter=Segmenter(fast=True)))
    (first, env), (second, _) = calls(tool)
    assert first[0::2][:2] == ["-i", "-o"]
    assert first[4:] == ["--ml", "--task", "total", "--device", "cpu", "--nr_thr_saving", "1", "--quiet"]
    assert second[4:] == [*first[4:], "--fast"]
    assert env["TOTALSEG_WEIGHTS_PATH"] == str(tool.parents[1] / "totalseg/nnunet/results")
    assert env["TOTALSEG_HOME_DIR"] != str(tool.parents[1] / "totalseg")
    assert not Path(first[1]).exists()


def test_a_full_map_of_the_source_needs_no_tool(lake, source, monkeypatch):
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR", "/nowhere/TotalSegmentator")
    row = convert(source, lake, **liver_block(source) | {"anatomy": "full"})
    assert (row.status, row.anatomy) == ("sealed", "full")


def test_what_the_source_labels_stays_the_sources(tool, lake, source):
    spleen = convert(source, lake, **liver_block(source, 1))
    anatomy = open_case(lake, spleen.key).read_all("anatomy")
    assert (anatomy[10:20, 15:25, 20:30] == 1).all()
    assert (anatomy == 1).sum() == 1000
    assert (anatomy == 5).any()
    liver = convert(source, lake, **liver_block(source, 5))
    anatomy = open_case(lake, liver.key).read_all("anatomy")
    assert (anatomy == 5).sum() == 1000  # the rest that the tool calls liver is not
    assert open_case(lake, liver.key).read_all("lesion").sum() == 1000


def test_a_segmentation_is_made_once_and_used_again(tool, lake, source, monkeypatch):
    first = convert(source, lake)
    case = source.case(0)
    key = segmentation_key(SEGMENTED, case, input_of(case, file_checksums(case)))
    assert lake.exists(key)
    monkeypatch.setenv("PEER", "fail")
    again = convert(source, lake, SEGMENTED.replace(name="other chunks", chunk=8))
    assert again.status == "sealed"
    assert again.key != first.key
    assert len(calls(tool)) == 1


def test_another_grid_or_version_does_not_use_it(source):
    case = source.case(0)
    recipes = [
        SEGMENTED,
        SEGMENTED.replace(version=99),
        SEGMENTED.replace(spacing_mm=3.0),
        SEGMENTED.replace(segmenter=Segmenter(fast=True)),
        SEGMENTED.replace(segmenter=Segmenter(version="2.17.0")),
    ]
    assert len({segmentation_key(recipe, case, "0" * 16) for recipe in recipes}) == 5


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("fail", "TotalSegmentator ended with status 1 and wrote no map; it said: RuntimeError: CUDA out of memory"),
        ("turn", "anatomy.nii.gz does not lie on its image's grid"),
        ("stray", "the segmentation holds ids from 0 to 200; the task's are 1 to 117"),
    ],
)
def test_what_the_tool_gets_wrong_quarantines_the_case_for_another_try(tool, lake, source, monkeypatch, peer, reason):
    monkeypatch.setenv("PEER", peer)
    row = convert(source, lake)
    assert row.status == "quarantined"
    assert row.reason.startswith("unexpected: ToolError: ")
    assert reason in row.reason
    assert lake.list("segmentations") == lake.list("ct") == []
    monkeypatch.setenv("PEER", "")
    assert convert(source, lake).status == "sealed"


def test_a_tool_that_hangs_is_ended_in_time(tool, lake, source, monkeypatch):
    monkeypatch.setenv("PEER", "hang")
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR_TIMEOUT_S", "3")
    row = convert(source, lake)
    assert "TotalSegmentator took longer than 3 s" in row.reason
    assert not subprocess.run(["pgrep", "-f", str(tool)], capture_output=True, check=False).stdout


def test_no_command_is_a_sentence_with_the_remedy(tool, monkeypatch):
    tool.unlink()
    with pytest.raises(UserError, match=rf"no such command at {tool}: .*meddiff\[anatomy\].*MEDDIFF_TOTALSEGMENTATOR"):
        find_tool(Segmenter(), load_settings())
    monkeypatch.delenv("MEDDIFF_TOTALSEGMENTATOR")
    monkeypatch.setenv("PATH", str(tool.parent))
    with pytest.raises(UserError, match="no such command on PATH"):
        find_tool(Segmenter(), load_settings())


def test_the_command_is_found_on_the_path(tool, monkeypatch):
    monkeypatch.delenv("MEDDIFF_TOTALSEGMENTATOR")
    monkeypatch.setenv("PATH", str(tool.parent))
    assert find_tool(Segmenter(), load_settings()).command == str(tool)


def test_another_version_than_the_recipes_is_refused(tool, monkeypatch):
    monkeypatch.setenv("PEER_VERSION", "2.4.0")
    with pytest.raises(UserError, match=r"asks for TotalSegmentator 2\.18\.0, but .* answers '2\.4\.0'"):
        find_tool(Segmenter(), load_settings())


@pytest.mark.parametrize(("fast", "task"), [(False, "total"), (True, "total_fast")])
def test_missing_weights_name_the_folder_and_the_remedy(tool, tmp_path, monkeypatch, fast, task):
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=f"missing in {tmp_path}/empty .*totalseg_download_weights -t {task}`"):
        find_tool(Segmenter(fast=fast), load_settings())


def test_the_doctor_is_told_of_the_tool(tool, tmp_path, monkeypatch):
    (check,) = look_at_tool(load_settings())
    assert check.status == "ok"
    assert check.found == f"{tool} on the cpu, weights in {tmp_path / 'totalseg/nnunet/results'}"
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "empty"))
    (check,) = look_at_tool(load_settings())
    assert check.status == "warning"
    assert check.found.startswith("weights of TotalSegmentator are missing in ")
    assert check.remedy.startswith("run `totalseg_download_weights -t total`")


def test_the_doctor_misses_only_a_tool_that_was_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MEDDIFF_TOTALSEGMENTATOR", raising=False)
    (check,) = look_at_tool(load_settings())
    assert check.status == "ok"
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR", "/nowhere/TotalSegmentator")
    (check,) = look_at_tool(load_settings())
    assert check.status == "warning"
    assert check.found.endswith("there is no such command at /nowhere/TotalSegmentator")
    assert check.remedy.startswith("install it (pip install")


def test_a_run_without_the_tool_ends_before_any_case_is_read(lake, source, tmp_path, monkeypatch):
    settings = Settings(home=tmp_path / "state", totalsegmentator="/nowhere/TotalSegmentator")
    monkeypatch.setattr("preprocessing.ingest.fan_out", None)
    with pytest.raises(UserError, match="no such command at /nowhere/TotalSegmentator"):
        ingest(lake, SEGMENTED, [source], settings=settings)
    assert read_manifest(lake, SEGMENTED).number == 0


def test_only_the_segmented_preset_asks_for_the_tool():
    asked = {name for name, recipe in RECIPES.items() if recipe().segmenter}
    assert asked == {"segmented"}
    assert RECIPES["segmented"]().fingerprint not in {RECIPES[name]().fingerprint for name in RECIPES.keys() - asked}


def test_the_last_line_of_a_complaint_is_what_counts():
    assert last_line(" 10%|#\r 20%|##\nValueError: no\n\n") == "ValueError: no"
    assert last_line("\r\n") == ""


def test_paths_of_the_tool_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings(totalsegmentator="env/bin/TotalSegmentator", totalseg_home="ts")
    assert settings.totalsegmentator == str(tmp_path / "env/bin/TotalSegmentator")
    assert settings.totalsegmentator_weights == tmp_path / "ts/nnunet/results"
    assert Settings(totalsegmentator="TotalSegmentator").totalsegmentator == "TotalSegmentator"


def test_the_extra_installs_the_version_that_recipes_pin():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["anatomy"] == [f"TotalSegmentator=={Segmenter().version}"]
