"""A CT of 512 × 512 × 800 voxels can be used on a machine of 16 GB: windows are streamed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

GIGABYTE = 1e9
PROGRAM = 1.5 * GIGABYTE  # Python, torch and a small network
BYTES_PER_VOXEL = (16 * GIGABYTE - PROGRAM) / (512 * 512 * 800)


@pytest.mark.slow
def test_denoising_and_drawing_a_large_ct_fit_into_16_gigabytes(tmp_path):
    script = Path(__file__).with_name("memory_process.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, script, tmp_path], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    taken = json.loads(answer.stdout.splitlines()[-1])
    print({name: f"{value:.0f} bytes a voxel" for name, value in taken.items()})
    assert sorted(taken) == ["denoise_file", "draw"]
    assert all(5 < value < BYTES_PER_VOXEL for value in taken.values())
