"""The 118 anatomy classes and what they mean.

Ids are TotalSegmentator v2 `total` (1-117), 118 = body, 0 = background. 119 = unknown: body that a partially labelled
source does not name. The table is package data, `classes.csv`.
"""

import csv
from functools import cache
from importlib.resources import files

BACKGROUND = 0
BODY = 118
UNKNOWN = 119
NUM_IDS = 120  # 0 … 119


@cache
def class_names() -> dict[int, str]:
    """{1: 'spleen', …, 118: 'body', 119: 'unknown'}."""
    return _column("name") | {UNKNOWN: "unknown"}


@cache
def class_groups() -> dict[int, str]:
    """{1: 'organ', 25: 'bone', …, 118: 'surface'}: bone, cardiovascular, lung, muscle, organ, surface."""
    return _column("group")


def _column(name: str) -> dict[int, str]:
    """A column of the table by class id."""
    rows = csv.DictReader(files("preprocessing").joinpath("classes.csv").read_text().splitlines())
    return {int(row["id"]): row[name] for row in rows}


@cache
def class_ids() -> dict[str, int]:
    """{'spleen': 1, …}: the inverse of `class_names`."""
    return {name: id_ for id_, name in class_names().items()}
