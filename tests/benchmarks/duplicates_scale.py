"""What finding candidates among many cases takes: made-up signatures, in a process of its own."""

import base64
import multiprocessing
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from process_memory import peak_bytes

from preprocessing.duplicates.candidates import candidate_pairs
from preprocessing.duplicates.signature import POINTS, RECORD, SAMPLES


def cost(texts: list[str], count: int, new: int) -> tuple[int, float, float]:
    """Candidates, CPU seconds and peak MB of a process that finds those of `new` among `count` made-up signatures."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_cost, (made_up_signatures(texts, count), new))


def _cost(signatures: list[str], new: int) -> tuple[int, float, float]:
    start = time.process_time()
    found = candidate_pairs(signatures, [n < new for n in range(len(signatures))])
    seconds = time.process_time() - start
    return len(found), seconds, peak_bytes() / 2**20


def made_up_signatures(texts: list[str], count: int) -> list[str]:
    """Signatures of nothing: each neighbourhood is a mixture of two real ones, at the place of a third."""
    rng = np.random.default_rng(0)
    pools: tuple[list[Any], list[Any]] = ([], [])
    for data in map(base64.b64decode, texts):
        records = np.frombuffer(data, RECORD, offset=1)
        pools[0].append(records[: data[0]])
        pools[1].append(records[data[0] :])
    mixed = [_mixed(np.concatenate(pool), (count, size), rng) for pool, size in zip(pools, POINTS, strict=True)]
    own = len(mixed[0][0]).to_bytes(1, "big")
    return [base64.b64encode(own + a.tobytes() + b.tobytes()).decode() for a, b in zip(*mixed, strict=True)]


def _mixed(pool: NDArray[Any], shape: tuple[int, int], rng: np.random.Generator) -> NDArray[Any]:
    records = pool[rng.integers(0, len(pool), shape)]
    for axis in "zyx":
        records[axis] = pool[axis][rng.integers(0, len(pool), shape)]
    levels = np.stack([pool["levels"] >> 4, pool["levels"] & 15], axis=-1).reshape(-1, SAMPLES) - 8.0
    for row in records:
        angle = rng.uniform(0, np.pi / 2, (len(row), 1))
        one, other = (levels[rng.integers(0, len(pool), len(row))] for _ in range(2))
        mixture = np.cos(angle) * one + np.sin(angle) * other
        whole = np.clip(np.rint(mixture) + 8, 0, 15).astype(np.uint8)
        row["levels"] = (whole[:, ::2] << 4) | whole[:, 1::2]
    return records
