"""The store: what is written is read back by us and by others, sealed or not at all, in the same bytes."""

import pickle

import google_crc32c
import numpy as np
import pytest
import zarr
from store_samples import GEOMETRY, KEY, RECIPE, SHAPE, made_pyramid, made_record

from infra.lake import Lake, open_lake
from preprocessing.case import CaseError
from preprocessing.recipe import Recipe
from preprocessing.seal import damaged_objects, read_seal, seal_key
from preprocessing.shards import index_bytes, read_index
from preprocessing.store import StoredCase, is_sealed, open_case, seal_case, write_case

PYRAMID = made_pyramid()
GOLDEN = {3: "fbf680d215c701e5e2106360ba5365b8"}  # recipe version: digest of the sample's seal


def store(lake: Lake, recipe: Recipe = RECIPE) -> str:
    write_case(lake, KEY, PYRAMID, made_record(), recipe)
    return seal_case(lake, KEY, made_record())


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = open_lake(str(tmp_path_factory.mktemp("lake")))
    store(lake)
    return lake


@pytest.fixture
def case(lake) -> StoredCase:
    return open_case(lake, KEY)


def test_every_level_and_label_comes_back_as_written(case):
    assert case.num_levels == 3
    for level in range(3):
        assert (case.read_all("image", level) == PYRAMID.image[level]).all()
        assert (case.read_all("anatomy", level) == PYRAMID.anatomy[level]).all()
        assert (case.read_all("lesion", level) == PYRAMID.lesion[level]).all()
    assert (case.read_all("low_dose") == PYRAMID.companions["low_dose"]).all()


def test_a_box_that_sticks_out_is_padded_with_air_and_background(case):
    start, shape = (-3, 40, -5), (9, 8, 70)
    image, anatomy = (case.read(name, 0, start, shape) for name in ("image", "anatomy"))
    assert image.shape == anatomy.shape == shape
    assert (image[:3] == -1024).all()
    assert (image[3:, :4, 5:55] == PYRAMID.image[0][:6, 40:44, :]).all()
    assert (image[:, 4:] == -1024).all()
    assert (anatomy[:, :, :5] == 0).all()


def test_a_box_wholly_outside_is_padding(case):
    assert (case.read("image", 0, (100, 0, 0), (2, 3, 4)) == -1024).all()
    assert (case.read("low_dose", 0, (-9, 0, 0), (2, 3, 4)) == -1024).all()


def test_random_boxes_are_what_zarr_python_reads(case, lake):
    array = zarr.open_array(lake.local_path(f"{KEY}/labels/anatomy/0"), mode="r")
    rng = np.random.default_rng(0)
    for _ in range(20):
        start = rng.integers(0, np.array(SHAPE) - 10)
        box = tuple(slice(a, a + 10) for a in start)
        assert (case.read("anatomy", 0, tuple(start), (10, 10, 10)) == array[box]).all()


def test_geometry_and_record_come_back(case):
    assert case.geometry(0) == GEOMETRY
    assert case.geometry(1).shape == (19, 22, 25)
    assert case.record.regions[0].name == "chest"
    assert case.record.classes[5] == "liver"


def test_thumbnails_are_kept_per_region(case):
    assert (case.thumbnail("chest", "image") == PYRAMID.thumbnails["chest"]["image"]).all()
    with pytest.raises(CaseError, match="holds no thumbnails/abdomen/image"):
        case.thumbnail("abdomen", "image")


def test_companions_exist_at_level_0_only(case):
    with pytest.raises(CaseError, match="holds no companions/low_dose/1"):
        case.read("low_dose", 1, (0, 0, 0), (1, 1, 1))


def test_a_case_travels_to_other_processes(case):
    assert (pickle.loads(pickle.dumps(case)).read_all("image", 2) == PYRAMID.image[2]).all()


@pytest.mark.parametrize("codec", ["lz4-shuffle", "zstd3-shuffle"])
def test_the_same_case_gives_the_same_bytes(tmp_path, codec):
    recipe = RECIPE.replace(codec=codec)
    one, two = (store(open_lake(str(tmp_path / name)), recipe) for name in "ab")
    assert one == two


def test_writing_again_changes_no_byte_and_removes_no_object(tmp_path):
    lake = open_lake(str(tmp_path))
    first = store(lake)
    before = {name: lake.read(name) for name in lake.list()}
    assert store(lake) == first
    assert {name: lake.read(name) for name in lake.list()} == before


SHARD = f"{KEY}/0/c/1/1/1"


def cut_short(shard: bytes) -> bytes:
    return shard[:-100]


def empty(shard: bytes) -> bytes:
    return b""


def without_its_first_chunk(shard: bytes) -> bytes:
    """The index, made anew, says that chunk 0, 0, 0 was never written; its checksum is right."""
    index = read_index(shard, (2, 2, 2)).copy()
    index[0, 0, 0] = 2**64 - 1
    return (
        shard[: -index_bytes((2, 2, 2))] + index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    )


def with_another_index(shard: bytes) -> bytes:
    return shard[:-50] + bytes([shard[-50] ^ 1]) + shard[-49:]


@pytest.mark.parametrize("harm", [cut_short, empty, with_another_index])
def test_writing_again_mends_what_a_power_cut_left(tmp_path, lake, harm):
    again = open_lake(str(tmp_path))
    write_case(again, KEY, PYRAMID, made_record(), RECIPE)
    again.write(SHARD, harm(again.read(SHARD)))
    assert store(again) == read_seal(lake, KEY).digest


def test_the_bytes_of_a_recipe_version_are_pinned(lake):
    """Bytes that change without a new recipe version would make equal names mean different data."""
    assert read_seal(lake, KEY).digest == GOLDEN[RECIPE.version]


def test_an_unsealed_case_is_refused(tmp_path):
    lake = open_lake(str(tmp_path))
    write_case(lake, KEY, PYRAMID, made_record(), RECIPE)
    assert not is_sealed(lake, KEY)
    with pytest.raises(CaseError, match="is not sealed"):
        open_case(lake, KEY)


@pytest.mark.parametrize(
    "lost",
    [
        "labels/lesion/0/c/1/1/1",
        "2/c/0/0/0",
        "1/zarr.json",
        "labels/zarr.json",
        "labels/anatomy/zarr.json",
        "labels/anatomy/2/zarr.json",
        "companions/low_dose/zarr.json",
        "thumbnails/chest/image/zarr.json",
        "zarr.json",
    ],
)
def test_a_missing_object_prevents_the_seal(tmp_path, lost):
    lake = open_lake(str(tmp_path))
    write_case(lake, KEY, PYRAMID, made_record(), RECIPE)
    lake.delete(f"{KEY}/{lost}")
    with pytest.raises(CaseError, match=f"made/one: 1 objects are missing, {lost} first"):
        seal_case(lake, KEY, made_record())
    assert not is_sealed(lake, KEY)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (cut_short, "fails its checksum"),
        (empty, "cut short"),
        (with_another_index, "fails its checksum"),
        (without_its_first_chunk, "it holds 1 of 2 chunks"),
    ],
)
def test_a_damaged_shard_prevents_the_seal(tmp_path, harm, found):
    lake = open_lake(str(tmp_path))
    write_case(lake, KEY, PYRAMID, made_record(), RECIPE)
    lake.write(SHARD, harm(lake.read(SHARD)))
    with pytest.raises(CaseError, match=f"made/one: 0/c/1/1/1 is damaged: .*{found}"):
        seal_case(lake, KEY, made_record())
    assert not is_sealed(lake, KEY)


def lost(shard: bytes) -> None:
    """Nothing is left of it."""


BUCKET = pytest.param("bucket", lost, marks=pytest.mark.server)
READ_AFTER = [*(("folder", harm) for harm in (cut_short, empty, with_another_index, lost)), BUCKET]


@pytest.mark.parametrize(("place", "harm"), READ_AFTER)
def test_a_reader_stops_at_a_shard_that_was_damaged_after_sealing(tmp_path, request, place, harm):
    lake = open_lake(str(tmp_path) if place == "folder" else f"{request.getfixturevalue('s3_bucket')}/lake")
    store(lake)
    harmed = harm(lake.read(SHARD))
    lake.delete(SHARD) if harmed is None else lake.write(SHARD, harmed)
    case = open_case(lake, KEY)
    assert (case.read("image", 0, (0, 0, 0), (32, 32, 32)) == PYRAMID.image[0][:32, :32, :32]).all()
    with pytest.raises(CaseError, match=r"0 is damaged .*`meddiff cases --verify` finds all"):
        case.read("image", 0, (30, 30, 30), (7, 10, 10))


def test_a_seal_of_a_newer_format_is_refused_by_name(tmp_path):
    lake = open_lake(str(tmp_path))
    store(lake)
    seal = read_seal(lake, KEY).replace(format=2)
    lake.write(seal_key(KEY), seal.model_dump_json().encode())
    with pytest.raises(CaseError, match="format 2, this meddiff reads up to 1"):
        open_case(lake, KEY)


def test_damage_after_sealing_is_found(tmp_path):
    lake = open_lake(str(tmp_path))
    store(lake)
    assert damaged_objects(lake, KEY) == []
    shard, thumbnail = f"{KEY}/1/c/0/0/0", f"{KEY}/thumbnails/chest/image/c/0/0/0"
    lake.write(shard, lake.read(shard)[:-1] + b"\0")
    lake.delete(thumbnail)
    assert damaged_objects(lake, KEY) == ["1/c/0/0/0", "thumbnails/chest/image/c/0/0/0"]


@pytest.mark.server
def test_a_bucket_holds_the_same_case(lake, s3_bucket):
    s3_lake = open_lake(f"{s3_bucket}/lake")
    assert store(s3_lake) == read_seal(lake, KEY).digest
    case = open_case(s3_lake, KEY)
    assert (case.read("image", 0, (-2, 10, 10), (12, 20, 30))[2:] == PYRAMID.image[0][:10, 10:30, 10:40]).all()
