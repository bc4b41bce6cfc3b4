"""What public label sets become: full, partial or no anatomy, lesions on the same grid, organs that keep their id."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from store_samples import RECIPE, SHAPE, made_image, write_image

from infra.lake import open_lake
from preprocessing.anatomy import BODY, UNKNOWN, class_ids, class_names
from preprocessing.convert import convert_case
from preprocessing.sources.class_names import organ_of
from preprocessing.sources.folder import FolderSource
from preprocessing.store import open_case

IDS = class_ids()
TABLE = Path(__file__).parents[2] / "preprocessing/classes.csv"
AMOS = ("spleen", "right kidney", "left kidney", "gall bladder", "esophagus", "liver", "stomach", "aorta", "postcava",
        "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate")  # fmt: skip
AMOS_IDS = (1, 2, 3, 4, 15, 5, 6, 52, 63, 7, 8, 9, 19, 21, 22)
ORGAN = np.s_[10:20, 15:25, 20:30]
TUMOUR = np.s_[12:16, 17:21, 22:27]


def mask(part) -> np.ndarray:
    out = np.zeros(SHAPE, np.uint8)
    out[part] = 1
    return out


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, array)


def converted(folder: Path):
    """(row, anatomy, lesion or None) of the only case of a folder."""
    source, lake = FolderSource(path=str(folder)), open_lake(str(folder.parent / "lake"))
    (case,) = source.cases()
    row = convert_case(case, source, RECIPE, lake)
    assert row.reason is None
    stored = open_case(lake, row.key)
    return row, stored.read_all("anatomy"), stored.read_all("lesion") if row.lesion else None


def decathlon(folder: Path, labels: dict[str, str], values: np.ndarray) -> None:
    put(folder / "imagesTr/case_1.nrrd", made_image())
    put(folder / "labelsTr/case_1.nrrd", values)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background"} | labels, "modality": {"0": "CT"}}))


def test_the_118_classes_are_the_tables():
    rows = list(csv.DictReader(TABLE.open()))
    assert [int(row["id"]) for row in rows] == list(range(1, 119))
    assert class_names() == {int(row["id"]): row["name"] for row in rows} | {UNKNOWN: "unknown"}
    assert (rows[-1]["name"], BODY, UNKNOWN) == ("body", 118, 119)
    assert len(set(class_names().values())) == 119


def test_a_source_of_fifteen_organs_never_says_body(tmp_path):
    values = np.zeros(SHAPE, np.uint8)
    for n in range(15):
        values[10 + n // 5, 15:20, 20 + n] = n + 1
    decathlon(tmp_path / "amos", {str(n): name for n, name in enumerate(AMOS, 1)}, values)
    row, anatomy, _ = converted(tmp_path / "amos")
    assert row.anatomy == "partial"
    assert set(np.unique(anatomy)) == {0, *AMOS_IDS, UNKNOWN}
    for n, id_ in enumerate(AMOS_IDS):
        assert (anatomy[10 + n // 5, 15:20, 20 + n] == id_).all()


@pytest.mark.parametrize("missing", [0, 1, 102])
def test_masks_are_full_only_where_all_117_are_declared(tmp_path, missing):
    put(tmp_path / "d/s1/ct.nrrd", made_image())
    for id_ in range(1, 118 - missing):
        put(tmp_path / f"d/s1/segmentations/{class_names()[id_]}.nrrd", mask(ORGAN) * (id_ == 5))
    row, anatomy, _ = converted(tmp_path / "d")
    assert row.anatomy == ("partial" if missing else "full")
    assert set(np.unique(anatomy)) == {0, 5, UNKNOWN if missing else BODY}


@pytest.mark.parametrize("named", [15, 117])
def test_a_map_is_full_only_where_its_table_names_all_117(tmp_path, named):
    put(tmp_path / "d/s1/ct.nrrd", made_image())
    put(tmp_path / "d/s1/anatomy.nrrd", mask(ORGAN) * np.uint8(5))
    lines = [f"{class_names()[id_]},{id_}" for id_ in range(1, named + 1)]
    (tmp_path / "d/s1/structures.csv").write_text("\n".join(["structure,id", *lines]))
    row, anatomy, _ = converted(tmp_path / "d")
    assert row.anatomy == ("full" if named == 117 else "partial")
    assert set(np.unique(anatomy)) == {0, 5, BODY if named == 117 else UNKNOWN}


@pytest.mark.parametrize(
    ("labels", "organ", "named"),
    [
        ({"1": "liver", "2": "cancer"}, "liver", "partial"),  # MSD 03
        ({"1": "pancreas", "2": "cancer"}, "pancreas", "partial"),  # MSD 07
        ({"1": "spleen", "2": "liver tumor", "3": "liver"}, "liver", "partial"),
        ({"2": "cancer"}, None, "none"),  # MSD 06: a lung's tumour alone
        ({"2": "colon cancer primaries"}, None, "none"),  # MSD 10
        ({"1": "Vessel", "2": "Tumour"}, None, "none"),  # MSD 08
        ({"1": "kidney", "2": "tumor", "3": "cyst"}, None, "none"),  # KiTS: a kidney without its side
    ],
)
def test_a_lesion_keeps_its_organ(tmp_path, labels, organ, named):
    values = mask(ORGAN)
    values[TUMOUR] = 2
    decathlon(tmp_path / "d", labels, values)
    row, anatomy, lesion = converted(tmp_path / "d")
    assert row.anatomy == named
    assert (lesion == (values == 2)).all()
    assert set(np.unique(anatomy[TUMOUR])) == {IDS[organ] if organ else UNKNOWN}
    assert BODY not in anatomy


@pytest.mark.parametrize("name", ["liver_lesions", "tumour", "lymph_node_metastasis"])
def test_a_lesion_mask_takes_no_voxel_from_an_organ(tmp_path, name):
    put(tmp_path / "d/s1/ct.nrrd", made_image())
    put(tmp_path / "d/s1/segmentations/liver.nrrd", mask(ORGAN))
    put(tmp_path / f"d/s1/segmentations/{name}.nrrd", mask(TUMOUR))
    row, anatomy, lesion = converted(tmp_path / "d")
    assert row.anatomy == "partial"
    assert ((anatomy == IDS["liver"]) == mask(ORGAN)).all()
    assert (lesion == mask(TUMOUR)).all()


def test_a_lesion_beside_a_full_map_keeps_the_maps_ids(tmp_path):
    put(tmp_path / "d/s1/ct.nrrd", made_image())
    put(tmp_path / "d/s1/anatomy.nrrd", mask(ORGAN) * np.uint8(14))
    put(tmp_path / "d/s1/lesion.nrrd", mask(np.s_[18:24, 17:21, 22:27]))  # half in a lobe, half beside it
    row, anatomy, lesion = converted(tmp_path / "d")
    assert (row.anatomy, row.lesion) == ("full", True)
    assert set(np.unique(anatomy[lesion > 0])) == {14, BODY}


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("liver tumour", "liver"),
        ("pancreas_tumor", "pancreas"),
        ("Right kidney cancer", "kidney_right"),
        ("cancer", None),
        ("lung nodule", None),
        ("lymph_node", None),
    ],
)
def test_a_tumours_name_may_say_its_organ(name, organ):
    assert organ_of(name) == (IDS[organ] if organ else None)
