"""A catalogue of 100,000 cases is listed, compared with its manifest and found unchanged in little time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from planning_scale import CASES, REFUSED_EVERY

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("planning_scale.py")
ROOT = SCRIPT.parents[2]
SECONDS = 10  # of CPU, so that a busy machine does not count
BYTES = 1e9


def _run(what: str, url: str) -> dict | None:
    done = subprocess.run(
        [sys.executable, SCRIPT, what, url], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_unchanged_catalogue_is_found_unchanged(tmp_path):
    url = str(tmp_path / "lake")
    _run("fill", url)
    found = _run("find", url)
    assert (found["status"], found["cases"], found["manifest"]) == ("unchanged", CASES, 1)
    assert found["counts"] == {
        "source": "catalogue",
        "listed": CASES,
        "sealed": CASES - CASES // REFUSED_EVERY,
        "converted": 0,
        "unchanged": CASES,
        "quarantined": CASES // REFUSED_EVERY,
        "reasons": {"it is a localizer": CASES // REFUSED_EVERY},
        "withdrawn": 0,
        "received": 0,
        "stored": 0,
    }
    assert found["plan_s"] < SECONDS
    assert found["ingest_s"] < SECONDS
    assert found["peak_bytes"] < BYTES
