"""Inputs: the bytes and meanings that a stored case is made of, by checksum, and where it is stored by them."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from infra.fingerprint import fingerprint
from preprocessing.case import Case, CaseError, source_folder
from preprocessing.decoding.data_files import data_files
from preprocessing.decoding.decode import image_files
from preprocessing.recipe import Recipe


def file_checksums(case: Case) -> dict[str, str]:
    """SHA-256 of every file of a fetched case, by its role: image/0, labels/0, lesion/0, companions/<name>.

    A companion that is a folder numbers its files: companions/<name>/0. The voxels of a detached header have a role
    below its own: image/0/voxels.

    Raises:
        CaseError: a file cannot be read, or a header names none that may be.
    """
    paths = {f"image/{n}": path for n, path in enumerate(case.image)}
    paths |= {f"labels/{n}": label.path for n, label in enumerate(case.labels)}
    paths |= {f"lesion/{n}": path for n, path in enumerate(case.lesion)}
    for name, path in case.companions:
        files = image_files(path)
        numbered = Path(path).is_dir()
        paths |= {f"companions/{name}/{n}" if numbered else f"companions/{name}": file for n, file in enumerate(files)}
    sums = {role: _file_checksum(path) for role, path in paths.items()}
    voxels = {role: data for role, path in paths.items() for data in data_files(Path(path))}
    return sums | {f"{role}/voxels": _file_checksum(str(data)) for role, data in voxels.items()}


def _file_checksum(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CaseError(f"{Path(path).name} cannot be read: {error.strerror or error}") from error


def input_of(case: Case, checksums: dict[str, str]) -> str:
    """16 hex characters over all that goes into a stored case but the recipe: the files' bytes and what they mean."""
    left_out = {"image", "lesion", "companions", "labels", "version", "problem", "split"}
    left_out |= {name for name in ("stack", "stated") if not getattr(case, name)}
    meaning = case.model_dump(mode="json", exclude=left_out)
    labels = [
        label.model_dump(mode="json", exclude={"path"} if label.own_grid else {"path", "own_grid"})
        for label in case.labels
    ]
    return fingerprint({"case": meaning, "labels": labels, "files": checksums})[:16]


def case_key(recipe: Recipe, case: Case, input_: str) -> str:
    """Where a case is stored: `ct/<recipe>/<source>/<case>/<input>.zarr`."""
    return f"ct/{recipe.fingerprint}/{source_folder(case.source)}/{quote(case.id, safe='/ +,=@')}/{input_}.zarr"
