"""Costs: from what such work took in the lake, else as it was measured elsewhere, else unknown, never 0."""

import pytest

from evaluation.cells import cells_in, pace_of_cells
from evaluation.config import Checkpoint, EvaluateConfig
from evaluation.config import tiny as tiny_sweep
from flows.cost import FREE, Cost, cells_cost, ingest_cost, pulled_per_case, total, training_cost
from flows.unit_costs import UNIT_COSTS, CaseCost, Pace
from infra.spent import Spent, note_spent
from preprocessing.ingest_counts import pace_of_cases
from preprocessing.recipe import demo, paper, paper_like, segmented
from preprocessing.sources.base import SourceInfo
from preprocessing.sources.registry import make_source
from training.config import paper_24gb, paper_finetune, tiny, tiny_finetune
from training.runs import pace_of_steps

INFO = SourceInfo(name="made", title="made up", size="about 3 GB", cases=1000)
UNITS = UNIT_COSTS.replace(
    cases={"paper": CaseCost(seconds=36.0, stored=500, objects=4)},
    steps={"tiny": Pace(seconds=9.0, device="cpu"), "paper-24gb": Pace(seconds=0.5, device="cuda")},
    cells={"denoising": Pace(seconds=36.0, device="cpu")},
)


def test_a_lake_without_history_is_priced_as_it_was_measured_elsewhere(lake):
    expected = Cost(pull_bytes=600_000_000, store_bytes=100_000, objects=800, cpu_hours=2.0, gpu_hours=0.0)
    assert ingest_cost(lake, paper(), INFO, 200, UNITS) == expected
    assert ingest_cost(None, paper_like(), INFO, 200, UNITS) == expected


def test_a_source_that_was_ingested_before_is_priced_as_it_was_then(lake):
    spent = Spent(count=10, seconds=7200, received=50, stored=2000, objects=20)
    note_spent(lake, "cases", pace_of_cases(paper(), "made"), spent)
    expected = Cost(pull_bytes=20, store_bytes=800, objects=8, cpu_hours=0.8, gpu_hours=0.0)
    assert ingest_cost(lake, paper(), INFO, 4, UNITS) == expected
    assert ingest_cost(lake, paper(), INFO.replace(name="other"), 4, UNITS) != expected


def test_what_nobody_measured_is_unknown():
    unknown = ingest_cost(None, segmented(), INFO.replace(size=""), 10, UNITS)
    assert unknown == Cost(gpu_hours=0.0)
    assert ingest_cost(None, paper(), INFO, None, UNITS) == Cost(gpu_hours=0.0)
    assert training_cost(None, paper_finetune("lesion"), paper_24gb().model, UNITS) == Cost(pull_bytes=0)


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"size": "18.1 TB of CT in release 25", "cases": 100}, 1.81e11),
        ({"size": "about 10 MB a case", "cases": None}, 1e7),
        ({"size": "23 GB", "cases": None}, None),
        ({"size": "large"}, None),
        ({"access": "local", "size": ""}, 0),
        ({"name": "phantom", "size": ""}, 0),
    ],
)
def test_what_must_travel_is_read_from_the_catalogue(changes, each):
    assert pulled_per_case(INFO.replace(**changes)) == each


def test_training_takes_its_steps_on_the_device_that_was_measured(lake):
    on_gpu = training_cost(lake, paper_24gb(), paper_24gb().model, UNITS)
    assert (on_gpu.cpu_hours, on_gpu.gpu_hours) == (0.0, 180_000 * 0.5 / 3600)
    longer = tiny().replace(train=tiny().train.replace(iterations=400, seed=5))
    assert training_cost(lake, longer, longer.model, UNITS).cpu_hours == 1.0
    spent = Spent(count=10, seconds=20.0, device="cuda")
    note_spent(lake, "steps", pace_of_steps(tiny(), tiny().model), spent)
    assert training_cost(lake, longer, longer.model, UNITS).gpu_hours == 800 / 3600
    larger = tiny().replace(train=tiny().train.replace(batch_size=8))
    assert training_cost(lake, larger, larger.model, UNITS) == Cost(pull_bytes=0)


def test_the_pace_of_a_finetuning_is_its_own(lake):
    note_spent(lake, "steps", pace_of_steps(tiny(), tiny().model), Spent(count=1, seconds=1.0))
    assert training_cost(lake, tiny_finetune("lesion"), tiny().model, UNITS) == Cost(pull_bytes=0)


def _cells(config: EvaluateConfig, *tasks: str):
    return cells_in(config.replace(tasks=tasks), [Checkpoint(base="runs/pretrain/x")], ("chest", "abdomen"))


def test_cells_are_priced_by_task_and_region_and_one_unknown_makes_all_unknown(lake):
    config, model = tiny_sweep(), tiny().model
    chest, abdomen = sorted(_cells(config, "denoising"), key=lambda cell: cell.region != "chest")
    assert cells_cost(lake, [chest, abdomen], config, model, UNITS).cpu_hours == 0.02
    note_spent(lake, "cells", pace_of_cells(chest, config, model), Spent(count=1, seconds=324.0))
    assert cells_cost(lake, [chest, abdomen], config, model, UNITS).cpu_hours == 0.1
    both = [chest, *_cells(config, "synthesis")]
    assert cells_cost(lake, both, config, model, UNITS) == Cost(pull_bytes=0)
    assert cells_cost(lake, [], config, model, UNITS).cpu_hours == 0.0


def test_cells_of_other_settings_are_not_priced_by_the_tiny_ones():
    config = EvaluateConfig()
    assert cells_cost(None, _cells(config, "denoising"), config, tiny().model, UNITS) == Cost(pull_bytes=0)


def test_a_sum_counts_what_is_known():
    assert total([FREE, Cost(pull_bytes=5, cpu_hours=1.0), Cost(cpu_hours=0.5)]) == Cost(
        pull_bytes=5, store_bytes=0, objects=0, cpu_hours=1.5, gpu_hours=0.0
    )
    assert total([Cost(), Cost(pull_bytes=1)]) == Cost(pull_bytes=1)


def test_every_measured_unit_is_of_something_that_exists():
    assert ingest_cost(None, demo(), INFO, 1).cpu_hours == UNIT_COSTS.cases["demo"].seconds / 3600
    assert training_cost(None, tiny_finetune("lesion"), tiny().model).cpu_hours
    assert set(UNIT_COSTS.cells) == set(tiny_sweep().tasks)


def test_a_collection_of_the_archive_says_how_much_must_travel():
    info = make_source("idc:pancreas_ct").info
    assert info.cases == 80
    each = pulled_per_case(info)
    assert ingest_cost(None, paper(), info, 80).pull_bytes == pytest.approx(80 * each, rel=1e-6)
    assert 1e7 < each < 1e9
