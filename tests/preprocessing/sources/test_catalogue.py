"""The catalogue: every source has a complete entry, a listing or a helpful refusal, and a test of its own."""

import re
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.anatomy import class_ids
from preprocessing.case import LESION
from preprocessing.licences import terms
from preprocessing.sources.base import Source
from preprocessing.sources.dataset import PublicSource
from preprocessing.sources.registry import DATASETS, IDC_SETS, SOURCES, dataset, make_source, source_infos

PUBLIC = sorted(DATASETS)
INFOS = {info.name: info for info in source_infos()}
HERE = Path(__file__).parent


@pytest.mark.parametrize("name", [*PUBLIC, *sorted(IDC_SETS)])
def test_an_entry_says_what_a_user_needs_to_know(name):
    info = INFOS[name]
    assert info.name == name
    assert info.title
    assert info.licence not in ("", "unknown")
    assert re.search(r"10\.\d{4,}/|arXiv|https?://", info.citation), "a citation can be looked up"
    assert info.url.startswith("http")
    assert info.how.endswith(".")
    assert info.cases is None or info.cases > 0
    if info.access == "registration":
        assert "--archive" in info.how
        assert "http" in info.how


@pytest.mark.parametrize("name", PUBLIC)
def test_label_values_mean_classes_that_exist(name):
    known = {*class_ids().values(), LESION}
    rules = dataset(name).layout.labels
    assert all(id_ in known for rule in rules for _, id_ in rule.pairs)
    values = [[value for value, _ in rule.pairs] for rule in rules]
    assert all(0 not in numbers for numbers in values), "0 is background"


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_pulled_comes_over_a_safe_way_under_one_name(name):
    source = make_source(name)
    assert isinstance(source, PublicSource)
    assert all(remote.url.startswith(("https://", "s3://")) for remote in source.remotes.values())
    assert len(source.remotes) == len(dataset(name).files)


@pytest.mark.parametrize("name", [name for name in PUBLIC if dataset(name).info.access == "registration"])
def test_a_gated_set_says_where_to_ask_and_what_to_bring(name, tmp_path):
    source = make_source(name)
    with pytest.raises(UserError, match=f"source {name} .*http.*--archive"):
        source.cases(open_lake(str(tmp_path)))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_source_is_made_without_a_network_and_travels_to_workers(name):
    import pickle

    source = make_source(name, keep_raw=False)
    assert isinstance(source, Source)
    assert pickle.loads(pickle.dumps(source)) == source


def test_every_public_data_set_has_a_miniature():
    tests = "".join(path.read_text() for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)
    assert [name for name in [*PUBLIC, *IDC_SETS] if f'"{name}"' not in tests] == []


def test_the_catalogue_is_sorted_and_has_everything():
    assert [info.name for info in source_infos()] == sorted(SOURCES)


@pytest.mark.parametrize(
    ("licence", "commercial", "derivatives"),
    [
        ("CC BY 4.0", True, True),
        ("CC BY 3.0", True, True),
        ("CC0 1.0", True, True),
        ("CC BY-SA 4.0", True, True),
        ("CC BY-NC 4.0", False, True),
        ("CC BY-NC-SA 4.0", False, True),
        ("CC BY-NC-ND 4.0", False, False),
        ("CC BY-ND 4.0", True, False),
        ("research only", False, True),
        ("unknown", False, True),
        ("National Library of Medicine Terms and Conditions; May 21, 2019", False, True),
        ("Apache-2.0", True, True),
    ],
)
def test_a_licence_is_read_from_its_short_name(licence, commercial, derivatives):
    assert terms(licence) == (commercial, derivatives)
