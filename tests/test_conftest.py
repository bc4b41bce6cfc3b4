"""What is skipped says what is missing; in CI a skip is a failure, but for GPU tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CASES = """
import pytest

def test_passes():
    pass

@pytest.mark.gpu
def test_gpu():
    pytest.skip("no CUDA device")

def test_reads(real_data):
    assert real_data.is_dir()

def test_looks(chromium):
    assert chromium

def test_looks_again(chromium):
    assert chromium
"""
WHOLE_FILE = "import pytest\npytest.importorskip('no_such_module')\n"


def outcome(folder: Path, code: str, *options: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of pytest on one file beside our conftest, on a machine without a browser or CTs."""
    folder.joinpath("conftest.py").write_bytes((TESTS / "conftest.py").read_bytes())
    folder.joinpath("pytest.ini").write_text("[pytest]\nmarkers = gpu\naddopts = -q -p no:cacheprovider\n")
    folder.joinpath("test_made.py").write_text(code)
    left = {k: v for k, v in os.environ.items() if k not in ("CI", "MEDDIFF_TEST_DATA") and not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env=left | {"PATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_missing_is_said_in_one_line_each(tmp_path):
    code, output = outcome(tmp_path, CASES)
    assert code == 0
    assert "1 passed, 4 skipped" in output
    assert [line for line in output.splitlines() if " skipped: " in line] == [
        "1 skipped: no CUDA device",
        "2 skipped: no Chromium: install it (Debian: apt-get install chromium)",
        "1 skipped: no real CTs: set MEDDIFF_TEST_DATA to a folder that holds them",
    ]


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "in two processes"])
def test_in_ci_a_skip_is_a_failure(tmp_path, options):
    code, output = outcome(tmp_path, CASES, *options, CI="true")
    assert code == 1
    assert "3 skipped, and in CI nothing but GPU tests may be" in output


def test_in_ci_a_file_that_skips_itself_is_a_failure(tmp_path):
    code, output = outcome(tmp_path, WHOLE_FILE, CI="true")
    assert code != 0
    assert "1 skipped, and in CI nothing" in output


def test_in_ci_only_gpu_tests_are_skipped_where_all_is_there(tmp_path):
    chromium = tmp_path / "chromium"
    chromium.write_text("#!/bin/sh\n")
    chromium.chmod(0o755)
    code, output = outcome(tmp_path, CASES, CI="true", MEDDIFF_TEST_DATA=str(tmp_path))
    assert (code, "4 passed, 1 skipped" in output) == (0, True)
