"""Duplicates: which stored cases are the same scan, and the clusters that they form.

Candidates come from the signatures in the manifest's rows; what is a duplicate is decided from the voxels of the
pyramid level nearest to 4 mm. Whether two cases are twins depends on these two alone, so neither the other cases nor
the order of ingest matter; what was decided once is kept in the rows and not decided again.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from infra.lake import Lake, storage_errors
from preprocessing.case import CaseError
from preprocessing.duplicates.candidates import candidate_pairs
from preprocessing.duplicates.same_scan import is_same_scan
from preprocessing.duplicates.signature import coarse_level
from preprocessing.store import StoredCase

logger = logging.getLogger(__name__)
OPEN_VOLUMES = 16
Twins = set[tuple[str, str]]


def find_twins(lake: Lake, signatures: Mapping[str, str], new: Collection[str]) -> Twins:
    """Pairs of keys (the smaller first) of stored cases that are the same scan, at least one of them in `new`.

    `signatures` are those of all stored cases by their key in the lake.
    """
    keys = sorted(key for key, text in signatures.items() if text)
    pairs = candidate_pairs([signatures[key] for key in keys], [key in new for key in keys])
    volume = lru_cache(OPEN_VOLUMES)(lambda key: _coarse_volume(lake, key))
    twins: Twins = set()
    for (i, j), arrangements in sorted(pairs.items()):
        one, other = volume(keys[i]), volume(keys[j])
        if one is None or other is None:
            continue
        if any(is_same_scan(one, other, arrangement) for arrangement in arrangements):
            twins.add((keys[i], keys[j]))
    return twins


def _coarse_volume(lake: Lake, key: str) -> NDArray[np.int16] | None:
    stored = StoredCase(lake, key)
    try:
        return stored.read_all("image", coarse_level(stored.geometry().spacing_mm[0], stored.num_levels))
    except (CaseError, *storage_errors(lake.url)) as error:
        logger.warning("%s cannot be compared with others: %s", key, error)
        return None


def clusters(names: Sequence[str], keys: Sequence[str], twins: Iterable[tuple[str, str]]) -> list[str]:
    """For every case the smallest name of its cluster: all that are twins over any number of steps, or its own.

    Args:
        names: what the cases are called.
        keys: where they are stored, "" for those that are not; cases of one key are one scan.
        twins: pairs of keys.
    """
    nodes = {key: n for n, key in enumerate(dict.fromkeys(key for key in keys if key))}
    edges = [(nodes[a], nodes[b]) for a, b in twins if a in nodes and b in nodes]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = sparse.coo_matrix((np.ones(len(edges), bool), (rows, columns)), shape=(len(nodes), len(nodes)))
    labels = connected_components(graph, directed=False)[1] if nodes else []
    smallest: dict[int, str] = {}
    for name, key in zip(names, keys, strict=True):
        if key:
            label = labels[nodes[key]]
            smallest[label] = min(name, smallest.get(label, name))
    return [smallest[labels[nodes[key]]] if key else name for name, key in zip(names, keys, strict=True)]
