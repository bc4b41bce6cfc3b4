"""The tables of infra/README.md's cost model, from the unit costs: what they say of one case, many times over."""

from collections.abc import Callable

from rich.filesize import decimal

from flows.unit_costs import UnitCosts
from training.config import PRETRAIN_PRESETS

PAPER, IDC = 5_376, 270_830
LINK = 125e6  # bytes a second of 1 Gbit/s
HEAD = ["", "a case", f"the paper's {PAPER:,} volumes", f"IDC's {IDC:,} CT series", "measured by"]
PRESET = "paper"  # of recipes


def volumes(units: UnitCosts) -> list[str]:
    """What so many cases take."""
    case, series, common = units.cases[PRESET], units.series, units.common
    index, real, made = "`idc-index-data` 25.0", "`meddiff bench ingest`, chest-full", "`meddiff bench ingest`"
    return _markdown(
        HEAD,
        [
            _row("bytes pulled", series.bytes, decimal_, index),
            _row("requests to the archive", series.requests, _count, index),
            _row("hours on 1 Gbit/s", series.bytes / LINK / 3600, _hours, "arithmetic"),
            _row("CPU hours of conversion", case.seconds / 3600, _hours, real),
            _row("bytes stored", case.stored, decimal_, real),
            _row("writes to a bucket", case.writes, _count, real),
            _row("reads from it", case.reads, _count, real),
            _row("hours of orchestration", common.orchestration_ms / 3.6e6, _hours, made),
            _row("seconds of one commit", common.commit_ms / 1e3, lambda s: f"{s:.2g}", made),
            _row("bytes of one manifest", common.row, decimal_, "`meddiff run`, 26 phantoms"),
            _row("CPU hours of looking for copies", common.pair_us / 3.6e9, _hours, "`meddiff bench duplicates`", 2),
        ],
    )


def training(units: UnitCosts) -> list[str]:
    """What a pre-training takes on a GPU, however many cases there are."""
    rows = []
    for name, pace in units.steps.items():
        if name in PRETRAIN_PRESETS and pace.device == "cuda":
            train = PRETRAIN_PRESETS[name]().train
            steps, samples = train.iterations, train.iterations * train.batch_size * train.accumulate
            hours = _hours(steps * pace.seconds / 3600)
            rows.append([f"`{name}`", f"{pace.seconds:.3f}", f"{steps:,}", f"{samples / IDC:.1f}", hours])
    return _markdown(["preset", "s a step", "steps", "samples a series of IDC", "GPU hours"], rows)


def filling_cores(units: UnitCosts) -> float:
    """How many cores convert as fast as 1 Gbit/s brings."""
    return LINK * units.cases[PRESET].seconds / units.series.bytes


def decimal_(value: float) -> str:
    """Bytes as people read them."""
    return decimal(round(value))


def _row(what: str, each: float | None, shown: Callable[[float], str], measured: str, power: int = 1) -> list[str]:
    """A line of the first table; with `power` 2, each case is held against each before it."""
    assert each is not None
    many = [each * (number if power == 1 else number * (number - 1) / 2) for number in (PAPER, IDC)]
    return [what, shown(each) if power == 1 else f"{each * 3.6e9:.1f} µs a pair", *map(shown, many), measured]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _hours(value: float) -> str:
    return f"{value:.1f}" if value >= 0.095 else f"{value * 3.6e6:.1f} ms" if value < 1e-6 else f"{value * 3600:.2g} s"


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, ["---"] * len(head), *rows)]
