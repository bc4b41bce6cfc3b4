"""The import arrow and the one-home rule, read from the source as text."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARROW = ("infra", "preprocessing", "training", "evaluation", "flows")
FORMATS = ("preprocessing/decoding/", "preprocessing/encoding/", "preprocessing/sources/phantom/")
HOMES = {
    "prefect": ("flows/",),
    "mlflow": ("infra/tracking.py",),
    "dask": ("infra/cluster.py",),
    "distributed": ("infra/cluster.py", "infra/doctor/dask_scheduler.py"),
    "zarr": ("infra/lake.py", "preprocessing/store.py"),
    "s3fs": ("infra/s3_objects.py", "infra/partial.py", "infra/remote_s3.py"),
    "fsspec": ("infra/s3_objects.py",),
    "httpx": ("infra/remote_http.py",),
    "huggingface_hub": ("infra/hub.py",),
    "tenacity": ("infra/fetch.py",),
    "nibabel": (*FORMATS, "preprocessing/totalsegmentator.py"),
    "pydicom": FORMATS,
    "SimpleITK": FORMATS,
    "highdicom": ("preprocessing/encoding/",),
    "torch": ("training/", "evaluation/"),
    "monai": ("training/", "evaluation/"),
}
HEAVY_IN_FLOWS = {"torch", "monai", "mlflow", "dask", "distributed"}
FILES = sorted(path for package in ARROW for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, module_scope_only: bool = False) -> set[str]:
    """Top-level names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_scope_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_package_imports_only_from_packages_to_its_left(path):
    own = ARROW.index(path.relative_to(ROOT).parts[0])
    to_the_right = imports(path) & set(ARROW[own + 1 :])
    assert not to_the_right, f"{path.relative_to(ROOT)} imports {sorted(to_the_right)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_outside_engine_has_one_home(path):
    place = path.relative_to(ROOT).as_posix()
    strangers = {name for name in imports(path) & set(HOMES) if not place.startswith(HOMES[name])}
    assert not strangers, f"{place} imports {sorted(strangers)}"


@pytest.mark.parametrize("path", sorted((ROOT / "flows").rglob("*.py")), ids=lambda p: p.name)
def test_a_flow_file_imports_nothing_heavy_at_module_scope(path):
    assert not imports(path, module_scope_only=True) & HEAVY_IN_FLOWS


ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    ours = [loaded for loaded in sys.modules if loaded.split(".")[0] in {own.split(".")[0] for own in sys.argv[1:]}]
    for loaded in ours:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error)
"""


def test_every_module_can_be_imported_first():
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES]
    child = subprocess.run([sys.executable, "-c", ALONE, *modules], cwd=ROOT, capture_output=True, text=True)
    assert child.stdout == ""
    assert child.returncode == 0, child.stderr


def test_the_top_level_is_the_owners():
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")} - {"build", "dist"}
    packages = {name for name in folders if not name.startswith("__") and not name.endswith(".egg-info")}
    assert packages == {*ARROW, "tests"}


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in FILES if path.stem in drawers]
