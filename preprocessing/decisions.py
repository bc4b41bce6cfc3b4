"""Decisions: what a commit makes of all rows together: their names, the clusters of duplicates, the split.

They depend on the rows alone, in whatever order they came, but for one thing that is remembered: a case that was once
excluded from training stays so, with all that is tied to it, also when the test case that it was excluded for is gone.
"""

from collections.abc import Collection

import pandas as pd

from preprocessing.duplicates import Twins, clusters
from preprocessing.recipe import Recipe
from preprocessing.split import Split, listed_splits, without_leaks

CaseId = tuple[str, str, str]
"""Source, id of its folder, and the case's id as the source lists it: what a case is called for good."""


def suffix(root: str) -> str:
    """What stands behind a case's name where another folder of its source has a case of that name."""
    return f"@{root[:8]}" if root else ""


def listed_names(rows: pd.DataFrame) -> list[str]:
    """The ids of the rows' cases as their source lists them."""
    return [case.removesuffix(suffix(root)) for case, root in zip(rows["case"], rows["root"], strict=True)]


def case_ids(rows: pd.DataFrame) -> list[CaseId]:
    """The rows' ids for good, in their order."""
    return list(zip(rows["source"], rows["root"], listed_names(rows), strict=True))


def with_names(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows sorted by source and case; cases of one name from several folders get their folder's id behind it."""
    listed = listed_names(rows)
    rows = rows.assign(case=pd.Series(listed, index=rows.index, dtype=object))
    several = rows.duplicated(["source", "case"], keep=False)
    names = [case + suffix(root) * again for case, root, again in zip(listed, rows["root"], several, strict=True)]
    rows = rows.assign(case=pd.Series(names, index=rows.index, dtype=object))
    return rows.sort_values(["source", "case"], kind="stable", ignore_index=True)


def once_excluded(rows: pd.DataFrame, left: Collection[CaseId]) -> frozenset[CaseId]:
    """The cases that these rows exclude, and those that were excluded when they `left` earlier ones."""
    return frozenset(case_ids(rows[rows["split"] == "excluded"])).union(left)


def decided(rows: pd.DataFrame, twins: Twins, once: Collection[CaseId], recipe: Recipe) -> pd.DataFrame:
    """The rows with cluster, split and twins, all of them decided anew.

    Args:
        rows: all rows, as `with_names` gives them.
        twins: pairs of keys of sealed rows that are the same scan.
        once: the cases that were excluded once.
        recipe: whose shares and salt decide the split.
    """
    sealed = rows["status"] == "sealed"
    sources, patients = list(rows["source"]), list(rows["patient"])
    keys = [key if done else "" for key, done in zip(rows["key"], sealed, strict=True)]
    names = [f"{source}/{case}" for source, case in zip(sources, rows["case"], strict=True)]
    groups = clusters(names, keys, twins)
    excluded = [case in once for case in case_ids(rows)]
    splits = without_leaks(listed_splits_of(rows, recipe), sources, patients, groups, list(sealed), excluded)
    others: dict[str, list[str]] = {}
    for one, other in twins:
        others.setdefault(one, []).append(other)
        others.setdefault(other, []).append(one)
    columns = {"cluster": groups, "split": splits, "twins": [tuple(sorted(others.get(key, ()))) for key in keys]}
    return rows.assign(**{name: pd.Series(values, dtype=object) for name, values in columns.items()})


def listed_splits_of(rows: pd.DataFrame, recipe: Recipe) -> list[Split]:
    """The split of every row before duplicates count."""
    return listed_splits(list(rows["source"]), list(rows["patient"]), list(rows["declared"]), recipe.split)
