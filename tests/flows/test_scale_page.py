"""The cost model in infra/README.md says what the unit costs say."""

import re
from pathlib import Path

from scale_tables import IDC, PAPER, filling_cores, training, volumes

from flows.unit_costs import UNIT_COSTS

PAGE = (Path(__file__).resolve().parents[2] / "infra" / "README.md").read_text()
SECTION = PAGE.partition("## What it costs at scale")[2]


def _tables() -> list[list[str]]:
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", SECTION, re.M)]


def test_the_tables_are_those_of_the_unit_costs():
    found = _tables()
    assert found[0] == volumes(UNIT_COSTS)
    assert found[1] == training(UNIT_COSTS)


def test_the_text_names_the_cores_that_fill_a_link():
    assert f"{filling_cores(UNIT_COSTS):.1f} cores" in SECTION


def test_another_unit_cost_is_another_table():
    slower = UNIT_COSTS.cases["paper"].replace(seconds=99.0)
    changed = volumes(UNIT_COSTS.replace(cases={"paper": slower}))
    assert [old == new for old, new in zip(volumes(UNIT_COSTS), changed, strict=True)].count(False) == 1


def test_the_paper_and_the_archive_are_as_large_as_they_say():
    from preprocessing.sources.idc_index import collections

    assert sum(collections().values()) == IDC
    assert f"{PAPER:,}" in SECTION
