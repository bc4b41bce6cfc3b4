"""Readers of one stored array: each opens it once and then gives boxes, on one thread.

A box is [start, stop) in voxels. Nobody may keep decoded chunks: a training crop hardly ever meets one twice.
"""

from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import tensorstore
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath

from benchmarks.counting_s3 import BUCKET, REGION
from infra.lake import Lake
from preprocessing.shards import ShardedArray

Box = tuple[tuple[int, ...], tuple[int, ...]]
Read = Callable[[Box], NDArray]
ONE_THREAD = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(*box, strict=True))


def by_us(folder: Path) -> Read:
    """Our own reader of shards."""
    array = ShardedArray(folder)
    return lambda box: array.read(*box)


def by_zarr(folder: Path) -> Read:
    """zarr-python, as configured by the caller."""
    array = zarr.open_array(folder, mode="r")
    return lambda box: np.asarray(array[_slices(box)])


def by_tensorstore(folder: Path) -> Read:
    """tensorstore without a cache."""
    return _tensorstore({"driver": "file", "path": f"{folder}/"})


def by_blosc2(path: Path) -> Read:
    """python-blosc2 with a memory map, as nnU-Net opens its cases."""
    array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    return lambda box: array[(0, *_slices(box))]


def by_lake(address: str, key: str) -> Read:
    """zarr-python and s3fs, as our lake reads a bucket."""
    store = Lake(f"s3://{BUCKET}", endpoint=address, region=REGION).store(key)
    array = zarr.open_array(StorePath(store), mode="r")
    return lambda box: np.asarray(array[_slices(box)])


def by_tensorstore_s3(address: str, key: str) -> Read:
    """tensorstore and its own S3 client."""
    place = {"driver": "s3", "bucket": BUCKET, "path": f"{key}/", "endpoint": address, "aws_region": REGION}
    return _tensorstore(place | {"aws_credentials": {"type": "environment"}})


def _tensorstore(kvstore: dict) -> Read:
    spec = {"driver": "zarr3", "kvstore": kvstore}
    array = tensorstore.open(spec, context=tensorstore.Context(ONE_THREAD), read=True, open=True).result()
    return lambda box: array[_slices(box)].read().result()
