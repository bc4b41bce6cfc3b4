"""Cells of a sweep: one task on one region's held-out cases, by one checkpoint, with one seed. Needs no torch.

A cell lies under `runs/cells/<fingerprint>/`. The fingerprint is over what decides its numbers and nothing else: the
region's cases, the weights it uses, the settings of its task. So a sweep measures only the cells that no sweep before
it has measured, whatever else changed, and one that was stopped goes on with the first cell that has no seal.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import Field

from evaluation.config import (
    ANOMALY_REGION,
    MEASUREMENT_VERSION,
    SEGMENTED,
    SETTINGS_OF_TASKS,
    Checkpoint,
    EvaluateConfig,
    TaskName,
    used_controls,
    used_segmenter_key,
)
from evaluation.extractor_files import weights_digests
from infra.config import Config
from infra.fingerprint import fingerprint
from infra.lake import Lake
from preprocessing.case import RegionName
from preprocessing.manifest import IDENTITY, Manifest
from training.config import ModelConfig
from training.runs import FORMAT, read_seal_as

NO_EFFECT = {"preset", "tasks", "regions", "seeds", "workers", "segmenter", *SETTINGS_OF_TASKS.values()}  # on one cell


class Cell(Config):
    """What is measured at once."""

    checkpoint: Checkpoint
    task: TaskName
    region: RegionName
    seed: int

    @property
    def name(self) -> str:
        """As people read it in progress bars and in MLflow."""
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.task} {self.region}{seed}"

    def config(self, sweep: EvaluateConfig) -> EvaluateConfig:
        """The sweep's config, narrowed to this cell."""
        return sweep.replace(tasks=(self.task,), regions=(self.region,), seeds=(self.seed,))


class CellSeal(Config):
    """`seal.json`: what a cell measured, and the digest of its rows."""

    format: int = FORMAT
    cell: Cell
    rows: str = Field(description="SHA-256 of rows.parquet")
    pictures: int
    evaluations: int = Field(description="network evaluations")
    seconds: float = Field(description="of measuring, on the machine that did")


def cells_of(config: EvaluateConfig, checkpoints: Sequence[Checkpoint], manifest: Manifest) -> list[Cell]:
    """Every cell of a sweep, tasks outermost, in the config's order; regions without any case have none."""
    shown = {region for regions in manifest.sealed()["regions"] for region in regions}
    return cells_in(config, checkpoints, shown)


def cells_in(config: EvaluateConfig, checkpoints: Sequence[Checkpoint], shown: Collection[RegionName]) -> list[Cell]:
    """Every cell of a sweep on data that show these regions."""
    return [
        Cell(checkpoint=checkpoint, task=task, region=region, seed=seed)
        for task in config.tasks
        for region in config.regions
        if region in shown and (task != "anomaly" or region == ANOMALY_REGION)
        for checkpoint in checkpoints
        for seed in config.seeds
    ]


def cell_keys(cells: Sequence[Cell], config: EvaluateConfig, manifest: Manifest) -> Iterator[str]:
    """Where each cell lies in the lake."""
    data = {region: region_fingerprint(manifest, region) for region in dict.fromkeys(cell.region for cell in cells)}
    values = config.model_dump(mode="json")
    extractors = weights_digests(config.synthesis.extractors)
    segmenter = used_segmenter_key(config, manifest.fingerprint)
    for cell in cells:
        networks = dict(extractors) if cell.task == "synthesis" else {}
        networks |= {"segmenter": segmenter} if cell.task in SEGMENTED else {}
        yield f"runs/cells/{fingerprint(_identity(cell, values, data[cell.region], networks))}"


def pace_of_cells(cell: Cell, config: EvaluateConfig, model: ModelConfig) -> str:
    """Under what is noted how long such a cell takes, whatever its data and weights are."""
    values = config.model_dump(mode="json")
    identity = [cell.task, cell.region, values[SETTINGS_OF_TASKS[cell.task]], _shared(values)]
    return fingerprint([*identity, model.model_dump(mode="json")])


def region_fingerprint(manifest: Manifest, region: RegionName) -> str:
    """The version of one region's data: cases of other regions have no part in it."""
    return fingerprint([manifest.paper_like, manifest.sealed(region=region)[list(IDENTITY)].to_numpy().tolist()])


def _identity(cell: Cell, values: dict[str, Any], data: str, networks: dict[str, str]) -> dict[str, Any]:
    return {
        "version": MEASUREMENT_VERSION,
        "data": data,
        "base": cell.checkpoint.base,
        "controls": used_controls(cell.task, cell.checkpoint),
        "task": cell.task,
        "region": cell.region,
        "seed": cell.seed,
        "settings": values[SETTINGS_OF_TASKS[cell.task]],
        "networks": networks,
        "shared": _shared(values),
    }


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in NO_EFFECT}


def read_cell_seal(lake: Lake, key: str) -> CellSeal:
    """The seal of a measured cell.

    Raises:
        UserError: it is not measured, its seal is damaged, or it is of a newer format.
    """
    again = "evaluate again"
    return read_seal_as(CellSeal, lake, key, kind="cell", if_missing=again, if_damaged=again)
