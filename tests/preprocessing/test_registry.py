"""The catalogue of sources and how one is made by its name."""

import subprocess
import sys

import pytest

from infra.errors import UserError
from preprocessing.sources.base import Source
from preprocessing.sources.registry import SOURCES, make_source, source_infos


def test_every_source_has_an_entry_with_its_own_name():
    assert [info.name for info in source_infos()] == sorted(SOURCES)
    assert all(info.title and info.licence and info.how for info in source_infos())


def test_a_source_is_made_by_its_name_with_its_options(tmp_path):
    phantom = make_source("phantom", patients=2, seed=3)
    assert isinstance(phantom, Source)
    assert isinstance(make_source("folder", path=str(tmp_path)), Source)
    assert phantom.cases()[0].source == phantom.info.name == "phantom"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fantom", {}, "there is no source 'fantom'; known are .*folder, .*phantom"),
        ("phantom", {"patients": "many"}, "source phantom: patients: .*integer"),
        ("phantom", {"colour": "red"}, "source phantom: colour: .*not permitted"),
        ("folder", {}, "source folder: path: .*required"),
    ],
)
def test_a_wrong_name_or_option_is_a_sentence(name, options, message):
    with pytest.raises(UserError, match=message):
        make_source(name, **options)


def test_naming_the_sources_imports_none_of_them():
    code = (
        "import sys, preprocessing.sources.registry; print([m for m in sys.modules if 'phantom' in m or 'folder' in m])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert run.stdout.strip() == "[]"
