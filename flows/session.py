"""Session: prepares this process for running flows in it, before Prefect is imported.

Every path becomes absolute, Prefect's state goes to the state folder, telemetry is off and the console is left to the
command's own output. A Prefect server that `meddiff up` started is used where no other is named; without any, Prefect
starts one of its own for the time of the run.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager

from flows.terminal import bars
from infra.errors import UserError
from infra.processes import running
from infra.services import QUIET
from infra.settings import URL_SCHEMES, Settings, load_settings

LIBRARIES = "infra,preprocessing,training,evaluation,flows"


def open_session(lake: str = "") -> Settings:
    """The settings of this command, absolute and handed on to every process that it starts.

    Raises:
        UserError: the lake's url is neither a path nor of a kind that a lake can be.
    """
    wanted = lake or os.environ.get("MEDDIFF_LAKE", "")
    if "://" in wanted and not wanted.startswith(URL_SCHEMES):
        raise UserError(f"{wanted} is no lake: give a folder, file:///folder or s3://bucket/prefix")
    os.environ["MEDDIFF_LAKE"] = wanted
    settings = load_settings()
    os.environ["MEDDIFF_HOME"] = str(settings.home)
    os.environ["MEDDIFF_LAKE"] = settings.lake_url
    return settings


@contextmanager
def flows_here(settings: Settings) -> Generator[None]:
    """Flows may be imported and called inside the block; their progress is shown as bars."""
    (settings.home / "prefect").mkdir(parents=True, exist_ok=True)
    server = running(settings.home).get("prefect")
    if server is not None:
        os.environ.setdefault("PREFECT_API_URL", server.address)
    for name, value in {**QUIET, **_prefect_environment(settings)}.items():
        os.environ.setdefault(name, value)
    with bars():
        yield


def _prefect_environment(settings: Settings) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": LIBRARIES,
    }
