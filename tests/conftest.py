"""Fixtures that more than one package's tests use."""

import logging
import os
import shutil
import stat
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CTs."""
    folder = os.environ.get("MEDDIFF_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real CTs: set MEDDIFF_TEST_DATA to a folder that holds them")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium)")
    return found


def pytest_terminal_summary(terminalreporter):
    """One line for every reason why tests were skipped."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}", yellow=True)


def pytest_sessionfinish(session):
    """In CI a skipped test is a failure, but for those that need a GPU."""
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = [r for r in reporter.stats.get("skipped", []) if "gpu" not in getattr(r, "keywords", {})]
    if skipped:
        reporter.write_line(f"\n{len(skipped)} skipped, and in CI nothing but GPU tests may be", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 server on loopback that lives as long as the session."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3_bucket(s3_server, monkeypatch) -> str:
    """The url of a new, empty bucket, with the environment that a client needs to reach it."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def segmentation_tool(tmp_path, monkeypatch) -> Path:
    """A peer of TotalSegmentator as an executable of its own, with weights, named by the environment."""
    from preprocessing.totalsegmentator import WEIGHTS

    peer = Path(__file__).parent / "preprocessing" / "threshold_segmenter.py"
    command = tmp_path / "bin" / "TotalSegmentator"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\n" + peer.read_text())
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    home = tmp_path / "totalseg"
    for number in [n for numbers in WEIGHTS.values() for n in numbers]:
        weights = home / f"nnunet/results/Dataset{number}_made/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0"
        weights.mkdir(parents=True)
        (weights / "checkpoint_final.pth").touch()
    monkeypatch.setenv("MEDDIFF_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR", str(command))
    monkeypatch.setenv("MEDDIFF_TOTALSEGMENTATOR_DEVICE", "cpu")
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(home))
    monkeypatch.setenv("PEER_LOG", str(tmp_path / "calls.jsonl"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    return command
