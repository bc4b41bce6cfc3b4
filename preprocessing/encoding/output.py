"""Where a result goes: its format by its name, and a file or folder that is there whole or not at all.

It is written under another name beside its place and renamed at the end. What lies there already is kept unless
overwriting is asked for; the input itself, and a folder that holds anything but a series of ours, are never replaced.
"""

import shutil
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import UserError
from preprocessing.encoding.derived import is_ours

NIFTI, ITK = (".nii", ".nii.gz"), (".nrrd", ".mha")
SERIES, SEGMENTATION = "", ".dcm"  # a name without ending is a folder of slices


def output_format(output: Path, allowed: Sequence[str]) -> str:
    """The ending of a result's name that says its format, one of `allowed`.

    Raises:
        UserError: it names another format.
    """
    name = output.name.lower()
    ending = ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
    if ending in allowed:
        return ending
    shown = ", ".join(one or "no ending for a DICOM folder" for one in allowed)
    raise UserError(f"{output.name} ends with {ending or 'nothing'}; a result's name ends with one of {shown}.")


def check_free(output: Path, inputs: Sequence[str], *, overwrite: bool) -> None:
    """Refuses a place that may not be written to, before anything is computed for it.

    Raises:
        UserError: it is the input, or something lies there that may not be replaced.
    """
    with _as_sentence(output):
        _check_free(output, inputs, overwrite)


def _check_free(output: Path, inputs: Sequence[str], overwrite: bool) -> None:
    place = output.resolve()
    if any(Path(path).resolve() == place or Path(path).resolve().is_relative_to(place) for path in inputs):
        raise UserError(f"{output} is the input itself, which is never replaced; name another output.")
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"{output} exists already; name another output or ask for it to be overwritten.")
    if output.is_dir() != (output_is_folder := not output.suffix):
        raise UserError(f"{output} is a {'file' if output_is_folder else 'folder'}; name another output.")
    if output_is_folder and not all(is_ours(path) for path in output.iterdir()):
        raise UserError(f"{output} holds files that are no result of ours; empty it yourself or name another output.")


@contextmanager
def whole(output: Path) -> Generator[Path]:
    """A name beside the output to write to; it becomes the output if nothing was raised, else nothing is left.

    Raises:
        UserError: the place cannot be written to.
    """
    partial = output.with_name(f".partial-{uuid.uuid4().hex[:8]}-{output.name}")
    try:
        with _as_sentence(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _publish(partial, output)
    finally:
        _remove(partial)


@contextmanager
def _as_sentence(output: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{output} cannot be written ({reason}); mend that or name another output.") from error


def _publish(partial: Path, output: Path) -> None:
    """Renames; a folder that was there steps aside first, and comes back where that fails."""
    aside = partial.with_name(f"{partial.name}-old")
    if output.is_dir():
        output.rename(aside)
    try:
        partial.replace(output)
    except OSError:
        if aside.exists():
            aside.rename(output)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
