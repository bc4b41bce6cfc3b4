"""Files of a data set on this machine: a bucket's through a copy, a user's compared with what its host declares."""

import os
import shutil
from pathlib import Path

from infra.checksums import Checksums, Record
from infra.fetch import refuse_wrong_sums
from infra.fingerprint import canonical_json, fingerprint
from infra.lake import Lake
from infra.remote import Remote
from infra.settings import load_settings


def local_copy(lake: Lake, key: str) -> Path:
    """A file of the lake on this machine: itself, or of a bucket a copy in the state folder, made once."""
    if (path := lake.local_path(key)) is not None:
        return path
    home = load_settings().home / "cache" / lake.id
    if not (home / key).is_file():
        partial = (home / key).with_name(f".{os.getpid()}.{Path(key).name}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with lake.open(key) as stream, partial.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 8 * 2**20)
        partial.rename(home / key)
    return home / key


def check(path: Path, declared: Remote) -> None:
    """Compare a file that a user brought with its declared checksums, once for each state of the file.

    Raises:
        UserError: it is another file.
    """
    if not (declared.sha256 or declared.md5):
        return
    status = path.stat()
    known = load_settings().home / "checked" / fingerprint([str(path), status.st_size, status.st_mtime_ns])
    if not known.is_file():
        with path.open("rb") as stream:
            record = Checksums.of(stream).record(str(path), "")
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(canonical_json(record.model_dump(mode="json")))
    refuse_wrong_sums(declared.replace(url=str(path)), Record.model_validate_json(known.read_text()))
