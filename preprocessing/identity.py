"""Identity: a folder of identified patients as a source whose names never leave this machine's memory.

Case ids, patients and paths become keyed hashes (HMAC-SHA256, RFC 2104). The key is a file of the state folder, mode
0600; a check value of it lies in the lake's marker, and a lake is never filled under two keys. Files are read through
links with neutral names, so that no message of a reader can hold a real one; what a case's hash stands for is written
to a private table in the state folder and nowhere else.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from infra.errors import UserError
from infra.fetch import Progress
from infra.lake import MARKER, Lake
from infra.settings import Settings
from preprocessing.case import Case
from preprocessing.convert import UNEXPECTED
from preprocessing.decoding.data_files import with_data_files
from preprocessing.origins import source_root
from preprocessing.sources.base import Source, SourceInfo
from preprocessing.sources.folder.naming import IMAGE_SUFFIXES, stem

KEY_FILE = "identity.key"
KEY_CHECK = "key_check"
QUOTED = re.compile(r"""b?(['"]).*?\1""")
HEADER_ONLY = (".mhd", ".nhdr", ".hdr")  # the voxels lie in another file that the header names


class IdentifiedSource:
    """A source that reads a folder in place, under hashes; picklable, but for workers of this machine only."""

    def __init__(self, source: Source, key: bytes) -> None:
        self.info: SourceInfo = source.info
        root = source_root(source)
        if root is None:
            raise UserError(f"source {source.info.name} reads no folder: there is nothing to hide in it")
        self.source, self.folder, self._key = source, root, key

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_key": b""}  # a worker hashes nothing

    @property
    def root(self) -> str:
        """The id of the folder, 12 hex characters."""
        return self.hidden(str(self.folder))[:12]

    def hidden(self, text: str) -> str:
        """16 hex characters that stand for a name; only who has the key can tell which."""
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:16]

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """The folder's cases under hashed ids and patients, their paths still real."""
        with silenced():
            listed = self.source.cases(lake, progress)
        names = self._names(path for case in listed for path in with_data_files(case.origin))
        hidden = [
            case.replace(
                id=self.hidden(f"case\n{case.id}"),
                patient=self.hidden(f"patient\n{case.patient}"),
                notes=tuple(self.scrubbed(note, names) for note in case.notes),
                problem=self.scrubbed(case.problem, names),
            )
            for case in listed
        ]
        return sorted(hidden, key=lambda case: case.id)

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with links to its files instead of their names."""
        links = {path: _link(scratch, f"{n:05d}", Path(path)) for n, path in enumerate(dict.fromkeys(case.origin))}
        return case.replace(
            image=tuple(links[path] for path in case.image),
            labels=tuple(file.replace(path=links[file.path]) for file in case.labels),
            lesion=tuple(links[path] for path in case.lesion),
            companions=tuple((name, links[path]) for name, path in case.companions),
        )

    def is_listed(self, lake: Lake | None) -> bool:
        """Always."""
        return True

    def finish(self, lake: Lake) -> None:
        """Nothing was pulled."""

    def origin(self, case: Case) -> tuple[str, ...]:
        """What the manifest says of a case's files."""
        return tuple(
            f"{self.root}:{self.hidden(os.path.relpath(path, self.folder))}" for path in with_data_files(case.origin)
        )

    def reason(self, text: str, case: Case) -> str:
        """A reason without names and without what it quotes of a file; of an unexpected error only the kind."""
        if text.startswith(UNEXPECTED):
            words = text.removeprefix(UNEXPECTED)
            return text if words.startswith("the worker process died") else UNEXPECTED + words.partition(":")[0]
        return self.scrubbed(QUOTED.sub("(hidden)", text), self._names(with_data_files(case.origin)))

    def scrubbed(self, text: str, names: Iterable[str]) -> str:
        """The text with a hash in place of every one of these names."""
        for name in sorted((name for name in names if name in text), key=len, reverse=True):
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", self.hidden(name), text)
        return text

    def _names(self, paths: Iterable[str]) -> set[str]:
        """All names of files and folders, with and without their ending, on the way from the root to these paths."""
        names = {part for path in paths for part in (*Path(os.path.relpath(path, self.folder)).parts, str(path))}
        return {name for part in names for name in (part, stem(part), part.partition(".")[0]) if name.strip(".")} | {
            self.folder.name,
            str(self.folder),
        }


def prepared(source: Source, lake: Lake, settings: Settings) -> Source:
    """The source as it is ingested: under hashes where it is marked `identified`.

    Raises:
        UserError: the lake was filled under another key.
    """
    if not getattr(source, "identified", False):
        return source
    return IdentifiedSource(source, checked_key(lake, settings))


def checked_key(lake: Lake, settings: Settings) -> bytes:
    """The key of the state folder, made where there is none and the lake knows none.

    Raises:
        UserError: the lake knows another key.
    """
    file = settings.home / KEY_FILE
    marker = json.loads(lake.read(MARKER))
    known = marker.get(KEY_CHECK, "")
    if not file.is_file():
        if known:
            raise UserError(f"{lake.url} was filled under a key that {file} does not hold; copy that file here first")
        _write_private(file, secrets.token_hex(32))
    key = bytes.fromhex(file.read_text().strip())
    check = hmac.new(key, f"key check\n{marker['id']}".encode(), hashlib.sha256).hexdigest()[:16]
    if known and not hmac.compare_digest(known, check):
        raise UserError(f"{lake.url} was filled under another key than {file}; use that key or another lake")
    if not known:
        lake.write(MARKER, json.dumps(marker | {KEY_CHECK: check}).encode())
    return key


def remember_identities(source: IdentifiedSource, cases: Iterable[Case], settings: Settings) -> None:
    """Write which files each hash stands for to `identified/<root>.json` of the state folder, mode 0600."""
    table = {case.id: list(case.origin) for case in cases}
    _write_private(settings.home / "identified" / f"{source.root}.json", json.dumps(table, indent=1))


@contextmanager
def silenced() -> Generator[None]:
    """No log line and no warning of a reader while the block runs: they quote headers and paths."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _link(folder: Path, name: str, path: Path) -> str:
    """A link to a file in a folder under a neutral name that keeps the format's ending."""
    lower = path.name.lower()
    suffix = next(
        (s for s in IMAGE_SUFFIXES if lower.endswith(s)), path.suffix.lower() if lower.endswith("dcm") else ""
    )
    (folder / f"{name}{suffix}").symlink_to(path)
    if suffix == ".hdr":
        for other in path.parent.glob(f"{stem(path.name)}.img*"):
            (folder / f"{name}{other.name[len(stem(path.name)) :].lower()}").symlink_to(other)
    elif suffix in HEADER_ONLY:
        for other in path.parent.iterdir():
            if other != path and other.is_file() and not (folder / other.name).is_symlink():
                (folder / other.name).symlink_to(other)
    return str(folder / f"{name}{suffix}")


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(file)
