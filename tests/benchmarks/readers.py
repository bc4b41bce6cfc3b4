"""Writers and readers of one stored array, each on one thread.

A reader opens the array once and then gives boxes, [start, stop) in voxels. Nobody may keep decoded chunks: a training
crop hardly ever meets one twice. Our own writer flushes every shard to the disk, and so does tensorstore.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc2
import numpy as np
import tensorstore
import zarr
from numpy.typing import NDArray
from zarr.storage import StorePath

from benchmarks.counting_s3 import BUCKET, REGION
from infra.lake import Lake
from preprocessing import layout
from preprocessing.shards import Codec, ShardedArray, encode_shard

Box = tuple[tuple[int, ...], tuple[int, ...]]
Read = Callable[[Box], NDArray]
Write = Callable[[Path, NDArray, Codec], None]
ONE_THREAD = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(*box, strict=True))


def write_by_us(folder: Path, image: NDArray, codec: Codec) -> None:
    """Our shards, into the array whose metadata lies there."""
    array = json.loads((folder / "zarr.json").read_bytes())
    shard = tuple(array["chunk_grid"]["configuration"]["chunk_shape"])
    chunk = tuple(array["codecs"][0]["configuration"]["chunk_shape"])

    def objects() -> Iterator[tuple[str, bytes]]:
        for name in layout.object_keys(image.shape, shard):
            place = [int(part) for part in name.split("/")[1:]]
            box = image[tuple(slice(i * s, i * s + s) for i, s in zip(place, shard, strict=True))]
            yield name, encode_shard(box, chunk, shard, codec, array["fill_value"])

    Lake(str(folder)).write_all(objects())


def write_by_zarr(folder: Path, image: NDArray, codec: Codec) -> None:
    """zarr-python, as configured by the caller."""
    zarr.open_array(folder, mode="r+")[...] = image


def write_by_tensorstore(folder: Path, image: NDArray, codec: Codec) -> None:
    """tensorstore, shard by shard in one transaction."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    array = tensorstore.open(spec, context=tensorstore.Context(ONE_THREAD), open=True).result()
    with tensorstore.Transaction() as transaction:
        array.with_transaction(transaction).write(image).result()


def by_us(folder: Path) -> Read:
    """Our own reader of shards."""
    array = ShardedArray(Lake(str(folder)), ".")
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
    """Our own reader of shards and s3fs."""
    array = ShardedArray(Lake(f"s3://{BUCKET}", endpoint=address, region=REGION), key)
    return lambda box: array.read(*box)


def by_zarr_s3(address: str, key: str) -> Read:
    """zarr-python and s3fs."""
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
