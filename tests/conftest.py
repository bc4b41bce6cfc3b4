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
