"""Archives of public datasets, listed and read in place: tar (plain, gzip, bzip2, xz), zip and 7z.

What it costs: a member of a plain tar or a zip is read alone. A packed tar and a solid 7z are unpacked from the
beginning up to the last member that is wanted, so ask for all files of a case in one call. Listing a tar reads it all
once; the index beside it answers from then on. Memory stays at a few MB (a 7z: up to 0.5 GB).

Nothing is written but the members asked for, below the folder given, each under its own name only when its size and
CRC-32 are right. What is refused: see `archive_members` (names, links), `archive_zip`, `archive_7z`, and `Limits`.
"""

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from py7zr.exceptions import PasswordRequired

from infra.errors import UserError
from infra.fingerprint import fingerprint
from preprocessing.archive.formats import DAMAGE, Format, damaged, find_format, reads_in_place
from preprocessing.archive.index import load_index, save_index, stamp
from preprocessing.archive.members import Catalogue, Entry, Limits, Member, catalogue, folded
from preprocessing.archive.output import Output
from preprocessing.case import CaseError

DEEPEST = 2  # an archive in an archive, and no further
LARGEST_READ = 64 * 2**20
ENCRYPTED = "{} is encrypted; give its password in MEDDIFF_<SOURCE>_PASSWORD (the dataset's page tells it)."


@dataclass(frozen=True)
class Archive:
    """One archive on disk that stays as it is; no file is held open, so it may go to another process."""

    path: Path
    catalogue: Catalogue = field(repr=False)
    password: str | None = field(repr=False)
    limits: Limits
    format: Format = field(repr=False)
    stamp: tuple[int, int] = field(repr=False)
    depth: int = 1

    @property
    def members(self) -> tuple[Member, ...]:
        """Every file in the archive, sorted by name."""
        return self.catalogue.members

    @property
    def in_place(self) -> bool:
        """Whether one member is read alone; otherwise every extraction starts at the beginning."""
        return reads_in_place(self.path, self.format)

    @property
    def findings(self) -> tuple[str, ...]:
        """What is odd about the archive without being refused."""
        return self.catalogue.findings

    def extract(self, names: Sequence[str], folder: Path) -> dict[str, Path]:
        """Write these members to `folder/name`; returns the path of each, in the order asked for.

        Raises:
            CaseError: a member is not there, has a problem, is damaged, or expands beyond the limits.
            UserError: the archive changed meanwhile, or the disk refuses the bytes.
        """
        wanted = self._wanted(names)
        outputs: dict[int, Output] = {}
        links = []
        for member in wanted:
            output = Output(member, folder, self.path.name)
            first = outputs.setdefault(member.place, output)
            links += [(output, first)] if first is not output else []
        self._unpack(outputs, sum(member.size for member in wanted), folder)
        for output, first in links:
            output.clone(first.path)
        return {member.name: folder / member.name for member in wanted}

    def read(self, name: str) -> bytes:
        """The bytes of one small member, such as a table.

        Raises:
            CaseError: as `extract`, or the member has more than 64 MB.
        """
        (member,) = self._wanted([name])
        if member.size > LARGEST_READ:
            raise CaseError(f"{self.path.name}: {name} has {member.size} bytes; extract it instead.")
        with tempfile.TemporaryDirectory() as folder:
            return self.extract([name], Path(folder))[name].read_bytes()

    def nested(self, name: str, scratch: Path, password: str | None = None) -> "Archive":
        """The archive that is a member of this one; it is extracted below `scratch` once and stays there.

        Raises:
            CaseError: as `extract`, or it lies deeper than in one other archive.
            UserError: it is no archive.
        """
        if self.depth >= DEEPEST:
            raise CaseError(f"{self.path.name}: {name} lies in an archive in an archive; unpack the outer one.")
        self._wanted([name])
        folder = scratch / fingerprint([str(self.path.absolute()), *self.stamp, name])
        if not (folder / name).is_file():
            self.extract([name], folder)
        return _opened(folder / name, password, self.limits, self.depth + 1)

    def _wanted(self, names: Sequence[str]) -> list[Member]:
        """The members of these names, once each, if they may be extracted together."""
        asked = dict.fromkeys(names)
        found = {member.name: member for member in self.members if member.name in asked}
        wanted = []
        for name in asked:
            if (member := found.get(name)) is None:
                raise CaseError(f"{self.path.name} has no member {name!r} (it has {len(self.members)}); list them.")
            problem = member.problem or self.limits.absurd(member.size, member.packed)
            if problem:
                raise CaseError(f"{self.path.name}: {name} {problem}; leave it out, or mend the archive.")
            wanted.append(member)
        if len({folded(name) for name in asked}) < len(asked):
            raise CaseError(f"{self.path.name}: of {', '.join(asked)} some differ only in case; extract each alone.")
        return wanted

    def _unpack(self, outputs: dict[int, Output], total: int, folder: Path) -> None:
        self._check_room(total, folder)
        try:
            with self._damage(outputs):
                self.format.unpack(self.path, outputs, self.password, self.limits)
                for output in outputs.values():
                    if not output.finished:
                        raise EOFError(f"{output.member.name} was not found again")
        finally:
            for output in outputs.values():
                output.abandon()

    def _check_room(self, total: int, folder: Path) -> None:
        if total > self.limits.total_bytes:
            raise CaseError(
                f"{self.path.name}: {total} bytes asked for at once, the limit is {self.limits.total_bytes}; "
                "ask for fewer members or raise the limit."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < total:
            raise UserError(f"{folder} has {free} bytes free, {self.path.name} needs {total}; free space there.")
        if stamp(self.path) != self.stamp:
            raise UserError(f"{self.path} changed since it was opened; open it again.")

    @contextmanager
    def _damage(self, outputs: dict[int, Output]) -> Generator[None]:
        """Names the archive and the members that are missing when a reader gives up."""
        try:
            yield
        except DAMAGE as error:
            missing = sorted(output.member.name for output in outputs.values() if not output.finished)
            which = " or ".join(missing[:2]) + (f" or {len(missing) - 2} others" if missing[2:] else "")
            raise CaseError(damaged(f"{self.path.name}: {which}", error, self.password)) from error


def open_archive(path: Path, password: str | None = None, limits: Limits | None = None) -> Archive:
    """The archive at a path, listed from its index or, once, from its bytes.

    Raises:
        UserError: not there, of no known format, split, damaged, encrypted without password, or with an unsafe name.
    """
    return _opened(Path(path), password, limits or Limits(), 1)


def _opened(path: Path, password: str | None, limits: Limits, depth: int) -> Archive:
    known, format_ = stamp(path), find_format(path)
    listing = load_index(path, known)
    if listing is None:
        listing = _listed(path, password, limits, format_.entries)
        if password is not None or not listing.encrypted:  # without it, links cannot be read
            save_index(path, known, listing)
    if listing.encrypted and password is None:
        raise UserError(ENCRYPTED.format(path.name))
    return Archive(path, listing, password, limits, format_, known, depth)


def _listed(path: Path, password: str | None, limits: Limits, entries: Callable[..., Iterable[Entry]]) -> Catalogue:
    try:
        return catalogue(entries(path, password, limits), path.name, limits)
    except PasswordRequired as error:
        raise UserError(ENCRYPTED.format(path.name)) from error
    except DAMAGE as error:
        raise UserError(damaged(path.name, error, password)) from error
