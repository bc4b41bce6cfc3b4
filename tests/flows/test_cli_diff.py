"""`meddiff diff`: what changed, as one JSON object or as a table, in one sentence where there is nothing to compare."""

import json

import pytest
from command import call
from flow_samples import phantom_rows

from preprocessing import recipe
from preprocessing.manifest import commit, read_manifest


@pytest.fixture
def changed(ingested):
    """The lake of six phantoms after one of them was withdrawn and another one refused."""
    rows = phantom_rows()
    refused = rows[1].replace(status="quarantined", reason="it is an MR image", key="", seal="")
    commit(ingested, recipe.demo(), {"phantom": [refused, *rows[2:]]})
    return ingested


def test_json_is_one_object_with_both_versions_counts_and_cases(changed, capsys):
    code, out, err = call(capsys, "diff", "--lake", changed.url, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["before"]["number"] == 1
    assert found["after"] == {
        "number": 2, "fingerprint": read_manifest(changed, recipe.demo()).fingerprint, "cases": 6,
    }  # fmt: skip
    assert found["sources"] == {"phantom": {"withdrawn": 1, "now quarantined": 1}}
    gone, refused = found["cases"]
    assert (gone["kinds"], gone["after"]) == (["withdrawn"], None)
    assert gone["before"]["status"] == "sealed"
    assert refused["after"]["reason"] == "it is an MR image"


def test_the_table_says_what_became_of_every_case(changed, capsys):
    prefix = read_manifest(changed, recipe.demo(), 1).fingerprint[:8]
    code, out, _ = call(capsys, "diff", prefix, "2", "--lake", changed.url)
    assert code == 0
    assert f"manifest 1 ({prefix}" in out
    assert "2 cases differ" in out
    assert "it is an MR image" in out
    assert "withdrawn" in out


def test_the_same_version_twice_differs_in_nothing(changed, capsys):
    code, out, _ = call(capsys, "diff", "2", "2", "--lake", changed.url)
    assert code == 0
    assert "no case differs" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["7"], "has no data version 7 of recipe demo"), (["--recipe", "paper"], "has no manifest of recipe paper")],
)
def test_what_is_not_there_is_one_sentence(changed, capsys, arguments, sentence):
    code, out, err = call(capsys, "diff", *arguments, "--lake", changed.url)
    assert (code, out) == (1, "")
    assert sentence in err
