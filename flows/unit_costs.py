"""Unit costs: what one case, step or cell took where it was measured, for lakes that have no history of their own.

Nothing here is assumed: a value that nobody measured is None. How each was measured stands in infra/README.md, whose
tables are recomputed from these by a test.
"""

from infra.config import Config
from infra.spent import Device


class CaseCost(Config):
    """A case on average: seconds of one worker, bytes and objects in the lake, requests to a bucket."""

    seconds: float | None = None
    stored: int | None = None
    objects: int | None = None
    writes: int | None = None
    reads: int | None = None


class Pace(Config):
    """The seconds that a step or a cell takes, and on what."""

    seconds: float
    device: Device


class ManifestCost(Config):
    """What a manifest's rows take, each."""

    bytes: float
    read_ms: float
    commit_ms: float


class UnitCosts(Config):
    """By recipe, by training preset (and task), by task of the tiny sweep."""

    cases: dict[str, CaseCost]
    steps: dict[str, Pace]
    cells: dict[str, Pace]
    orchestration_ms: float | None = None


UNIT_COSTS = UnitCosts(
    cases={"paper": CaseCost(), "demo": CaseCost()},
    steps={
        "paper": Pace(seconds=0.528, device="cuda"),
        "paper-16gb": Pace(seconds=0.528, device="cuda"),
        "paper-24gb": Pace(seconds=0.286, device="cuda"),
        "paper-80gb": Pace(seconds=0.244, device="cuda"),
    },
    cells={},
)
