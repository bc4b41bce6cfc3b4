"""Background processes are ended by record, with their children, and nobody else is."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.errors import UserError
from infra.processes import end, free_port, recorded, running, spawn, wait

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def home(tmp_path):
    yield tmp_path
    end(tmp_path)


def _gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _says_ready(service):
    return "ready" in Path(service.log).read_text()


def test_a_spawned_process_is_recorded_with_its_start_time(home):
    service = spawn(home, "sleeper", SLEEP, {}, "")
    state = json.loads((home / "services.json").read_text())
    assert state["format"] == 1
    assert state["services"][0]["pid"] == service.pid
    assert running(home) == {"sleeper": service}


def test_end_takes_the_children_along(home):
    service = spawn(home, "parent", PARENT, {}, "")
    wait(service, lambda: _says_ready(service), within_s=20)
    child = psutil.Process(service.pid).children()[0].pid
    assert end(home) == ["parent"]
    assert _gone(service.pid)
    assert _gone(child)
    assert recorded(home) == []


def test_end_finds_the_children_of_a_parent_that_was_killed(home):
    service = spawn(home, "parent", PARENT, {}, "")
    wait(service, lambda: _says_ready(service), within_s=20)
    process = psutil.Process(service.pid)
    child = process.children()[0].pid
    process.kill()
    process.wait(5)
    assert not service.alive
    end(home)
    assert _gone(child)


def test_a_process_that_took_over_the_pid_is_left_alone(home):
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        service = spawn(home, "mine", SLEEP, {}, "")
        end(home)
        old = service.replace(pid=stranger.pid, created=service.created - 3600)
        (home / "services.json").write_text(json.dumps({"format": 1, "services": [old.model_dump()]}))
        assert running(home) == {}
        assert end(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_ends_while_starting_is_reported_with_its_log(home):
    service = spawn(home, "broken", [sys.executable, "-c", "raise SystemExit('no such database')"], {}, "")
    with pytest.raises(UserError, match=r"broken service ended while starting.*no such database"):
        wait(service, lambda: False, within_s=20)


def test_a_process_that_never_answers_is_reported(home):
    service = spawn(home, "mute", SLEEP, {}, "")
    begin = time.monotonic()
    with pytest.raises(UserError, match="mute service did not answer within 1 s"):
        wait(service, lambda: False, within_s=1)
    assert time.monotonic() - begin < 5


def test_a_busy_port_moves_to_the_next():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        busy = listener.getsockname()[1]
        assert free_port(busy) > busy
