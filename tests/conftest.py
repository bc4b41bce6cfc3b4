"""Fixtures that more than one package's tests use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CTs; in CI it must be there."""
    folder = os.environ.get("MEDDIFF_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        if os.environ.get("CI"):
            pytest.fail("MEDDIFF_TEST_DATA names no folder of real CTs, and in CI nothing may be skipped")
        pytest.skip("set MEDDIFF_TEST_DATA to the folder of real CTs to run this test")
    return Path(folder).resolve()


def pytest_sessionfinish(session, exitstatus):
    """In CI a skipped test is a failure, but for those that need a GPU."""
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [r for r in reporter.stats.get("skipped", []) if "gpu" not in r.keywords]
    if skipped and exitstatus == 0:
        reporter.write_line(f"{len(skipped)} tests were skipped; in CI nothing but GPU tests may be", red=True)
        session.exitstatus = 1
