"""The installed packages, beside what this package declares and what `requirements.lock` pins."""

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from infra.doctor.check import Check, Status
from infra.settings import Settings

OWN = "meddiff"
LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"  # only in a checkout
ENGINES = ("prefect", "mlflow", "dask", "zarr", "torch", "monai")
NAMED = 5


def look_at_packages(_: Settings) -> Iterator[Check]:
    """Missing where a declared range is not met, a warning where a pin is not."""
    remedy = "pip install -r requirements.lock" if LOCK.is_file() else f"pip install --upgrade {OWN}"
    declared = [line for line in _declared() if line.marker is None or line.marker.evaluate({"extra": ""})]
    engines = ", ".join(f"{name} {installed(name) or '-'}" for name in ENGINES)
    yield _compared("packages", "missing", wrong(declared), engines, remedy)
    if LOCK.is_file():
        pins = [pin for pin in pinned(LOCK) if installed(pin.name)]
        yield _compared("lock", "warning", wrong(pins), f"{len(pins)} packages as requirements.lock pins them", remedy)


def _compared(what: str, otherwise: Status, differences: list[str], good: str, remedy: str) -> Check:
    if not differences:
        return Check(what=what, status="ok", found=good)
    more = f" and {len(differences) - NAMED} more" if len(differences) > NAMED else ""
    return Check(what=what, status=otherwise, found=", ".join(differences[:NAMED]) + more, remedy=remedy)


def wrong(wanted: Iterable[Requirement]) -> list[str]:
    """What is not there in a wanted version; a local version (`+cpu`) counts as its public one."""
    return [text for requirement in wanted if (text := _difference(requirement))]


def pinned(lock: Path) -> list[Requirement]:
    """The lines of a lock file."""
    return [Requirement(line) for line in lock.read_text().splitlines() if line.strip() and not line.startswith("#")]


def installed(name: str) -> str:
    """The installed version; "" where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _declared() -> list[Requirement]:
    try:
        return [Requirement(line) for line in requires(OWN) or []]
    except PackageNotFoundError:
        return []


def _difference(wanted: Requirement) -> str:
    found = installed(wanted.name)
    if not found:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(Version(found).public, prereleases=True):
        return ""
    return f"{wanted.name} {found}, not {wanted.specifier}"
