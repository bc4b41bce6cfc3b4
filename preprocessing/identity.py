"""Identity: a folder of identified patients as a source whose names never leave this machine's memory.

Case ids, patients and paths become keyed hashes (HMAC-SHA256, RFC 2104). The key is a file of the state folder, mode
0600; a check value of it lies in the lake's marker, and a lake is never filled under two keys. Files are read through
links with neutral names, so that no message of a reader can hold a real one; what it quotes of a file is hidden as
well. What the hash of a case or of the folder stands for is written to private tables in the state folder and nowhere
else: Prefect keeps a flow's parameters, so there the folder's path is `folder:<id>`.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import UserError
from infra.fetch import Progress
from infra.lake import MARKER, Lake
from infra.settings import Settings, absolute_url
from preprocessing.case import Case
from preprocessing.convert import UNEXPECTED
from preprocessing.decoding.data_files import with_data_files
from preprocessing.origins import source_root
from preprocessing.sources.base import Source, SourceInfo
from preprocessing.sources.folder.naming import IMAGE_SUFFIXES, stem

KEY_FILE = "identity.key"
KEY_CHECK = "key_check"
QUOTED = re.compile(r"""b?(['"])(?:\\.|(?!\1).)*\1""", re.DOTALL)
HIDDEN = "(hidden)"
FOLDERS = "identified/folders.json"
FOLDER = "folder:"  # in front of the id that stands for a folder where its path must not be written
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
        return _root_id(self._key, self.folder)

    def hidden(self, text: str) -> str:
        """16 hex characters that stand for a name; only who has the key can tell which."""
        return _hash(self._key, text)

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """The folder's cases under hashed ids and patients, their paths still real."""
        listed = self._listed(lake, progress)
        names = self._names(path for case in listed for path in with_data_files(case.origin))
        hidden = [
            case.replace(
                id=self.hidden(f"case\n{case.id}"),
                patient=self.hidden(f"patient\n{case.patient}"),
                notes=tuple(self._scrubbed(note, names) for note in case.notes),
                problem=self._scrubbed(case.problem, names),
            )
            for case in listed
        ]
        return sorted(hidden, key=lambda case: case.id)

    def _listed(self, lake: Lake | None, progress: Progress | None) -> list[Case]:
        """The folder's cases under their real names; an error names neither the folder nor a file."""
        try:
            with silenced():
                return self.source.cases(lake, progress)
        except UserError as error:
            raise UserError(self._scrubbed(str(error), self._names(()))) from None
        except Exception as error:  # noqa: BLE001 - its text may hold any name
            raise UserError(f"the folder {self.root} cannot be listed ({type(error).__name__})") from None

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with links to its files instead of their names."""
        links = {path: _link(scratch, f"{n:05d}", Path(path)) for n, path in enumerate(dict.fromkeys(case.origin))}
        return case.relocated(links.__getitem__)

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
        return self._scrubbed(text, self._names(with_data_files(case.origin)))

    def finding(self, text: str, case: Case) -> str:
        """The same of a finding, in a worker: there a name leaves no hash."""
        return _without(text, self._names(with_data_files(case.origin)), lambda _: HIDDEN)

    def _scrubbed(self, text: str, names: Iterable[str]) -> str:
        return _without(text, names, self.hidden)

    def _names(self, paths: Iterable[str]) -> set[str]:
        """All names of files and folders, with and without their ending, on the way from the root to these paths."""
        names = {part for path in paths for part in (*Path(os.path.relpath(path, self.folder)).parts, str(path))}
        return {name for part in names for name in (part, stem(part), part.partition(".")[0]) if name.strip(".")} | {
            self.folder.name,
            str(self.folder),
        }


def _without(text: str, names: Iterable[str], instead: Callable[[str], str]) -> str:
    """The text without what it quotes, and with something instead of every one of these names."""
    text = QUOTED.sub(HIDDEN, text)
    for name in sorted((name for name in names if name in text), key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", instead(name), text)
    return text


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
        with suppress(FileExistsError):  # another ingest made one at the same time: that one counts
            _write_private(file, secrets.token_hex(32), exclusive=True)
    key = bytes.fromhex(file.read_text().strip())
    check = _hash(key, f"key check\n{marker['id']}")
    if known and not hmac.compare_digest(known, check):
        raise UserError(f"{lake.url} was filled under another key than {file}; use that key or another lake")
    if not known:
        lake.write(MARKER, json.dumps(marker | {KEY_CHECK: check}).encode())
    return key


def remember_identities(source: IdentifiedSource, cases: Iterable[Case], settings: Settings) -> None:
    """Write which files each hash stands for to `identified/<root>.json` of the state folder, mode 0600."""
    table = {case.id: list(case.origin) for case in cases}
    _write_private(settings.home / "identified" / f"{source.root}.json", json.dumps(table, indent=1))


def folder_in_hiding(path: str, lake: Lake, settings: Settings) -> str:
    """`folder:<id>`, to be written in place of a folder's path; what it stands for lies in the state folder, mode 0600.

    Raises:
        UserError: the lake was filled under another key.
    """
    id_ = _root_id(checked_key(lake, settings), Path(absolute_url(path)))
    known = _known_folders(settings)
    if id_ not in known:
        _write_private(settings.home / FOLDERS, json.dumps(known | {id_: absolute_url(path)}, indent=1))
    return f"{FOLDER}{id_}"


def folder_behind(text: str, settings: Settings) -> str:
    """The path that `folder:<id>` stands for on this machine; any other text is a path already.

    Raises:
        UserError: this machine does not know the id.
    """
    if not text.startswith(FOLDER):
        return text
    known = _known_folders(settings)
    if (id_ := text.removeprefix(FOLDER)) not in known:
        raise UserError(
            f"{settings.home / FOLDERS} does not know {text}; run `meddiff ingest folder --path DIR --identified` on "
            "this machine once"
        )
    return known[id_]


def _known_folders(settings: Settings) -> dict[str, str]:
    try:
        return json.loads((settings.home / FOLDERS).read_text())
    except FileNotFoundError:
        return {}


def _root_id(key: bytes, folder: Path) -> str:
    return _hash(key, str(folder))[:12]


def _hash(key: bytes, text: str) -> str:
    """16 hex characters."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]


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


def _link(scratch: Path, name: str, path: Path) -> str:
    """A link to a file under a neutral name that keeps the format's ending.

    The voxels of a detached header lie beside it under the name that the header says, in a folder of their own.
    """
    lower = path.name.lower()
    suffix = next(
        (s for s in IMAGE_SUFFIXES if lower.endswith(s)), path.suffix.lower() if lower.endswith("dcm") else ""
    )
    if suffix not in HEADER_ONLY:
        (scratch / f"{name}{suffix}").symlink_to(path)
        return str(scratch / f"{name}{suffix}")
    folder = scratch / name
    folder.mkdir()
    link = folder / f"{name}{suffix}"
    for data in with_data_files([str(path)])[1:]:
        place = Path(data).relative_to(path.parent)
        place = folder / (f"{name}{place.name[len(stem(path.name)) :].lower()}" if suffix == ".hdr" else place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(data)
    link.symlink_to(path)
    return str(link)


def _write_private(file: Path, text: str, *, exclusive: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.touch(mode=0o600)
    partial.write_text(text)
    if exclusive:
        try:
            file.hardlink_to(partial)
        finally:
            partial.unlink()
    else:
        partial.replace(file)
