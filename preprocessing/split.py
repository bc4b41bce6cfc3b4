"""The split: train, val or test by a hash of the patient, or as the data set declares; a case that is tied to a test
case by a duplicate or a patient is excluded from training.

A pure function of the rows and of what was excluded before, so the order of ingest does not matter, and cases only ever
move from train or val to excluded.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from preprocessing.recipe import SplitRule

Split = Literal["train", "val", "test", "excluded"]


def patient_split(source: str, patient: str, rule: SplitRule) -> Split:
    """Where a patient's cases go: SHA-256 of source, patient and the public salt, read as a number in [0, 1)."""
    digest = hashlib.sha256("\n".join((source, patient, rule.salt)).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < rule.train:
        return "train"
    return "val" if position < rule.train + rule.val else "test"


def listed_splits(sources: Sequence[str], patients: Sequence[str], declared: Sequence[str], rule: SplitRule) -> list:
    """The split of every case before duplicates count: the one that its data set declares, else its patient's."""
    known: dict[tuple[str, str], Split] = {}
    for key in zip(sources, patients, strict=True):
        if key not in known:
            known[key] = patient_split(*key, rule)
    return [own or known[key] for key, own in zip(zip(sources, patients, strict=True), declared, strict=True)]


def without_leaks(
    splits: Sequence[Split],
    sources: Sequence[str],
    patients: Sequence[str],
    clusters: Sequence[str],
    sealed: Sequence[bool],
    once: Sequence[bool] = (),
) -> list[Split]:
    """The splits with `excluded` in place of train and val where a case is tied to a sealed test case.

    Cases of one cluster are tied, and so are cases of one patient, over as many steps as it takes. A case that was
    excluded `once` counts as a test case does.
    """
    cases = np.arange(len(splits))
    ties = [pd.factorize(pd.Series(list(zip(sources, patients, strict=True)), dtype=object))[0]]
    ties += [pd.factorize(pd.Series(list(clusters), dtype=object))[0] + ties[0].max(initial=-1) + 1]
    nodes = len(cases) + max((tie.max(initial=-1) for tie in ties), default=-1) + 1
    rows, columns = np.tile(cases, 2), np.concatenate(ties) + len(cases)
    graph = sparse.coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(nodes, nodes))
    group = connected_components(graph, directed=False)[1][: len(cases)]
    tested = {g for g, split, done in zip(group, splits, sealed, strict=True) if split == "test" and done}
    tested |= {g for g, excluded in zip(group, once, strict=bool(once)) if excluded}
    return ["excluded" if s != "test" and g in tested else s for s, g in zip(splits, group, strict=True)]
