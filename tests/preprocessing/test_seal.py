"""A writer that is killed leaves no sealed case, and running it again gives the very same bytes."""

import signal
import subprocess
import sys

import pytest
from store_samples import KEY, RECIPE, made_pyramid, made_record

from infra.lake import open_lake
from preprocessing.case import CaseError
from preprocessing.store import is_sealed, open_case, seal_case, write_case

KILLED = """
import os, signal, sys
from infra.lake import Lake, open_lake
from preprocessing.store import write_case
from store_samples import KEY, RECIPE, made_pyramid, made_record
lake = open_lake(sys.argv[1])
write = Lake.write
def killed(self, key, data):
    if key.endswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, key, data)
Lake.write = killed
write_case(lake, KEY, made_pyramid(), made_record(), RECIPE)
"""


@pytest.mark.parametrize("last", ["thumbnails/chest/image/zarr.json", "zarr/zarr.json"])
def test_a_killed_writer_leaves_no_sealed_case(tmp_path, last):
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "lake"), last], env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert child.returncode == -signal.SIGKILL
    lake = open_lake(str(tmp_path / "lake"))
    assert any(name.startswith(KEY) for name in lake.list("ct"))
    assert not is_sealed(lake, KEY)
    with pytest.raises(CaseError, match="not sealed"):
        open_case(lake, KEY)
    with pytest.raises(CaseError, match="objects are missing"):
        seal_case(lake, KEY, made_record())

    whole = open_lake(str(tmp_path / "other"))
    digests = []
    for place in (lake, whole):
        write_case(place, KEY, made_pyramid(), made_record(), RECIPE)
        digests.append(seal_case(place, KEY, made_record()))
    assert digests[0] == digests[1]
