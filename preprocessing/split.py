"""The split: train, val or test by a hash of the patient; a duplicate of a test case is excluded from training.

A pure function of the rows, so the order of ingest does not matter, and adding cases can only move others from train
or val to excluded.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

from preprocessing.recipe import SplitRule

Split = Literal["train", "val", "test", "excluded"]


def patient_split(source: str, patient: str, rule: SplitRule) -> Split:
    """Where a patient's cases go: SHA-256 of source, patient and the public salt, read as a number in [0, 1)."""
    digest = hashlib.sha256("\n".join((source, patient, rule.salt)).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < rule.train:
        return "train"
    return "val" if position < rule.train + rule.val else "test"


def case_splits(
    sources: Sequence[str], patients: Sequence[str], clusters: Sequence[str], sealed: Sequence[bool], rule: SplitRule
) -> list[Split]:
    """The split of every case: its patient's, but excluded where its cluster holds a sealed test case."""
    first = [patient_split(source, patient, rule) for source, patient in zip(sources, patients, strict=True)]
    tested = {
        cluster
        for cluster, split, is_sealed in zip(clusters, first, sealed, strict=True)
        if split == "test" and is_sealed
    }
    return [
        "excluded" if split != "test" and cluster in tested else split
        for split, cluster in zip(first, clusters, strict=True)
    ]
