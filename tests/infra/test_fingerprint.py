"""Fingerprints: equal exactly where the canonical JSON is equal, and refusing what has none."""

import math
import subprocess
import sys

import pytest

from infra.config import Config
from infra.fingerprint import canonical_json, fingerprint


class Sample(Config):
    name: str = "a"
    sizes: tuple[int, ...] = (1, 2)


def test_key_order_does_not_matter_but_values_do():
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert len(fingerprint({})) == 32


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_without_json_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        fingerprint([value])


def test_a_set_is_refused_because_its_order_changes():
    with pytest.raises(TypeError):
        fingerprint({"names": {"a", "b"}})


def test_canonical_json_is_pure_ascii_without_spaces():
    assert canonical_json({"b": "σ", "a": [1, True, None]}) == '{"a":[1,true,null],"b":"\\u03c3"}'


def test_a_config_has_the_same_fingerprint_in_another_process():
    code = "from test_fingerprint import Sample; print(Sample().fingerprint)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=True
    )
    assert run.stdout.strip() == Sample().fingerprint


def test_replace_validates_and_changes_the_fingerprint():
    changed = Sample().replace(sizes=[3])
    assert changed.sizes == (3,)
    assert changed.fingerprint != Sample().fingerprint
    with pytest.raises(ValueError, match="extra"):
        Sample().replace(colour="red")
