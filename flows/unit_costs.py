"""Unit costs: what one case, step or cell took where it was measured, for lakes that have no history of their own.

Nothing here is assumed: what nobody measured is None or missing. How each was measured stands in infra/README.md,
whose tables a test recomputes from these.
"""

from infra.config import Config
from infra.spent import Device


class CaseCost(Config):
    """Converting a case: CPU seconds of one worker, bytes and objects in the lake, requests to a bucket in all."""

    seconds: float
    stored: int
    objects: int
    writes: int | None = None
    reads: int | None = None


class Pace(Config):
    """The seconds that a step or a cell takes, and on what."""

    seconds: float
    device: Device


class SeriesCost(Config):
    """Pulling a CT series of the Imaging Data Commons: the mean of all 270,830; one request an object."""

    bytes: int
    requests: float


class CommonCost(Config):
    """What a case takes beside its conversion.

    `row` are bytes of the manifest, which every commit writes anew; `pair_us` are CPU microseconds of telling whether
    it may be a copy of one other case.
    """

    orchestration_ms: float
    row: int
    commit_ms: float
    pair_us: float


class UnitCosts(Config):
    """Cases by recipe, steps by training preset and task, cells by task of the tiny sweep."""

    cases: dict[str, CaseCost]
    steps: dict[str, Pace]
    cells: dict[str, Pace]
    series: SeriesCost
    common: CommonCost


UNIT_COSTS = UnitCosts(
    cases={
        "paper": CaseCost(seconds=1.41, stored=55_500_000, objects=40, writes=42, reads=121),
        "demo": CaseCost(seconds=6.6, stored=6_780_000, objects=48),
    },
    steps={
        "tiny": Pace(seconds=3.0, device="cpu"),
        "tiny superresolution": Pace(seconds=3.8, device="cpu"),
        "tiny lesion": Pace(seconds=4.3, device="cpu"),
        "tiny segmenter": Pace(seconds=0.35, device="cpu"),
        "paper segmenter": Pace(seconds=0.297, device="cuda"),
        "paper": Pace(seconds=0.528, device="cuda"),
        "paper-16gb": Pace(seconds=0.528, device="cuda"),
        "paper-24gb": Pace(seconds=0.286, device="cuda"),
    },
    cells={
        "synthesis": Pace(seconds=6.7, device="cpu"),
        "denoising": Pace(seconds=33.0, device="cpu"),
        "anomaly": Pace(seconds=97.0, device="cpu"),
        "superresolution": Pace(seconds=27.0, device="cpu"),
        "lesion-generation": Pace(seconds=16.0, device="cpu"),
        "lesion-inpainting": Pace(seconds=33.0, device="cpu"),
    },
    series=SeriesCost(bytes=66_800_000, requests=148.8),
    common=CommonCost(orchestration_ms=1.2, row=3880, commit_ms=0.24, pair_us=1.5),
)
