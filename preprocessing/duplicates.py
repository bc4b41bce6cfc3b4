"""Duplicates: a small signature per case and the clusters of cases whose signatures nearly agree.

A signature is the soft-tissue image of the body, cropped to it and averaged into 16³ blocks, standardised and rounded
to int8, in base64. Two cases of one cluster are the same scan under two names, as far as this can tell: the cosine of
their signatures is above a threshold.
"""

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

EDGE = 16
SOFT_HU = (-200, 300)
SAME_COSINE = 0.98
BLOCK = 1024
QUANTUM = 32


def signature(image: NDArray[np.int16], body: NDArray[np.bool_]) -> str:
    """The signature of a volume (int16 HU and body mask of one shape; a coarse level is enough)."""
    where = [np.flatnonzero(body.any(tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(int(i[0]), int(i[-1]) + 1) if len(i) else slice(None) for i in where)
    small = _block_means(np.clip(image[box], *SOFT_HU).astype(np.float32))
    spread = float(small.std())
    scaled = (small - small.mean()) / spread if spread > 0 else small * 0
    return base64.b64encode(np.clip(np.rint(scaled * QUANTUM), -127, 127).astype(np.int8).tobytes()).decode()


def _block_means(array: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in range(3):
        length = array.shape[axis]
        edges = np.linspace(0, length, EDGE + 1)
        start = np.minimum(edges[:-1].astype(int), length - 1)
        stop = np.maximum(np.ceil(edges[1:]).astype(int), start + 1)
        total = np.concatenate([np.zeros_like(array.take([0], axis)), np.cumsum(array, axis)], axis)
        count = (stop - start).reshape([-1 if a == axis else 1 for a in range(3)])
        array = (total.take(stop, axis) - total.take(start, axis)) / count
    return array.astype(np.float32)


def clusters(names: Sequence[str], signatures: Sequence[str]) -> list[str]:
    """For every case the smallest name of its cluster; its own where it is alone or has no signature.

    The answer depends on the set of cases, not on their order.
    """
    known = [i for i, text in enumerate(signatures) if text]
    out = list(names)
    if not known:
        return out
    vectors = np.stack([np.frombuffer(base64.b64decode(signatures[i]), np.int8) for i in known]).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    _, labels = connected_components(_alike(vectors), directed=False)
    smallest: dict[int, str] = {}
    for i, label in zip(known, labels, strict=True):
        smallest[label] = min(names[i], smallest.get(label, names[i]))
    for i, label in zip(known, labels, strict=True):
        out[i] = smallest[label]
    return out


def _alike(vectors: NDArray[np.float32]) -> sparse.coo_matrix:
    rows, columns = [], []
    for start in range(0, len(vectors), BLOCK):
        row, column = np.nonzero(vectors[start : start + BLOCK] @ vectors.T > SAME_COSINE)
        rows.append(row + start)
        columns.append(column)
    index = np.concatenate(rows), np.concatenate(columns)
    return sparse.coo_matrix((np.ones(len(index[0]), bool), index), shape=(len(vectors), len(vectors)))
