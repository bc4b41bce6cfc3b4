"""What an archive holds, in one form for tar, zip and 7z: entries as stored become members that are safe to extract.

One rule for names in every format, stricter than tarfile's data filter (which strips a leading slash): a name that
leaves the tree, is absolute, or no portable file could bear refuses the archive. A member that cannot be had (a link
out of the tree, a device) stays listed with its problem, so that only the case that needs it is lost. Folders,
AppleDouble twins (`._x`), `__MACOSX` and `.DS_Store` are skipped.
"""

import posixpath
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from infra.config import Config
from infra.errors import UserError

Kind = Literal["file", "symlink", "hardlink", "folder"]
DRIVE = re.compile(r"[A-Za-z]:")
LONGEST_PART = 255  # bytes of one part of a path on every common file system
NAMED_IN_A_FINDING = 3


class Limits(Config):
    """Up to where an archive is believed.

    A member, or a compressed tar as a whole, may expand by `ratio`; what is below `ratio_from_bytes` may be an empty
    label map, which deflate packs 1000 to 1. One extraction writes at most `total_bytes`.
    """

    ratio: float = 300.0
    ratio_from_bytes: int = 512 * 2**20
    total_bytes: int = 64 * 2**30
    members: int = 2_000_000

    def absurd(self, size: int, packed: int) -> str:
        """Why `size` bytes out of `packed` are not believed; empty where they are."""
        if size <= self.ratio_from_bytes or size <= self.ratio * packed:
            return ""
        return f"{packed} bytes claim to hold {size}, more than {self.ratio:g} to 1, which is how a zip bomb is made"


class Entry(NamedTuple):
    """One record of an archive as it is stored: `place` is its offset (tar, zip) or number (7z), bytes are counted."""

    name: str
    kind: Kind
    size: int
    packed: int
    place: int
    crc: int | None = None
    target: str = ""
    problem: str = ""
    encrypted: bool = False


class Member(NamedTuple):
    """One file in an archive: safe POSIX name, bytes unpacked and packed, where it is stored, CRC-32 if it has one.

    `problem` says why it cannot be extracted. A link has the size and place of the file it leads to.
    """

    name: str
    size: int
    packed: int
    place: int
    crc: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Catalogue:
    """Members sorted by name, what is odd about them, and whether a password is needed."""

    members: tuple[Member, ...]
    findings: tuple[str, ...] = ()
    encrypted: bool = False


def catalogue(entries: Iterable[Entry], archive: str, limits: Limits) -> Catalogue:
    """The members that the entries make; of entries with one name the last one counts, as for tar.

    Raises:
        UserError: a name is not safe, or there are more entries than `limits` allow.
    """
    found: dict[str, Entry] = {}
    repeated: set[str] = set()
    encrypted = False
    for count, entry in enumerate(entries, 1):
        if count > limits.members:
            raise UserError(f"{archive} holds more than {limits.members} members; raise the limit if that is right.")
        name = safe_name(entry.name, archive)
        encrypted |= entry.encrypted
        if entry.kind == "folder" or not name or _left_by_macos(name):
            continue
        if name in found:
            repeated.add(name)
        found[name] = entry
    findings = [*_listed("stored more than once, the last one counts", sorted(repeated)), *_same_but_for_case(found)]
    return Catalogue(tuple(_members(found)), tuple(findings), encrypted)


def safe_name(name: str, archive: str) -> str:
    """The name with plain `/` between its parts, without `.`; empty for the root.

    Raises:
        UserError: it leaves the tree, is absolute, or holds backslashes, control characters or too long a part.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if reason := _unsafe(name, parts):
        raise UserError(f"{archive} is refused: its member {name[:300]!r} {reason}; pack it again with relative names.")
    return "/".join(parts)


def _unsafe(name: str, parts: list[str]) -> str:
    if name.startswith("/") or DRIVE.match(name):
        return "has an absolute name"
    if ".." in parts:
        return "has a name that leaves the folder ('..')"
    if "\\" in name:
        return "has a backslash in its name"
    if not name.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        return "has NUL or control characters in its name"
    if len(name.encode()) > LONGEST_PART and any(len(part.encode()) > LONGEST_PART for part in parts):
        return f"has a name with a part of more than {LONGEST_PART} bytes"
    return ""


def _left_by_macos(name: str) -> bool:
    *folders, last = name.split("/")
    return last.startswith("._") or last == ".DS_Store" or "__MACOSX" in (*folders, last)


def _listed(what: str, names: list[str]) -> list[str]:
    """One finding for all names, the first few spelt out; none where there are no names."""
    if not names:
        return []
    more = f" and {len(names) - NAMED_IN_A_FINDING} more" if len(names) > NAMED_IN_A_FINDING else ""
    return [f"{what}: {', '.join(names[:NAMED_IN_A_FINDING])}{more}"]


def folded(name: str) -> str:
    """What two names have in common that one file on a case-insensitive file system would bear."""
    return unicodedata.normalize("NFC", name).casefold()


def _same_but_for_case(names: Iterable[str]) -> list[str]:
    twins: dict[str, list[str]] = {}
    for name in names:
        twins.setdefault(folded(name), []).append(name)
    return _listed("names differ only in case", sorted(n for group in twins.values() if len(group) > 1 for n in group))


def _members(found: dict[str, Entry]) -> Iterable[Member]:
    """One member per name, sorted; links become what they lead to."""
    folders: set[str] = set()
    if any(entry.kind in ("symlink", "hardlink") for entry in found.values()):
        folders = {name[:at] for name in found for at, letter in enumerate(name) if letter == "/"}
    for name in sorted(found):
        entry, problem = _followed(name, found, folders)
        yield Member(name, entry.size, entry.packed, entry.place, entry.crc, problem or entry.problem)


def _followed(name: str, found: dict[str, Entry], folders: set[str]) -> tuple[Entry, str]:
    """The entry at the end of a chain of links, and why there is none."""
    entry, seen = found[name], {name}
    while entry.kind in ("symlink", "hardlink") and not entry.problem:
        start = posixpath.dirname(name) if entry.kind == "symlink" else ""
        name = posixpath.normpath(posixpath.join(start, entry.target))
        if not entry.target or _unsafe(entry.target, []) or name == ".." or name.startswith("../"):
            return entry, f"is a link out of the archive, to {entry.target[:300]!r}"
        if name in folders:
            return entry, f"is a link to the folder {name}; folders are not followed"
        if name in seen or name not in found:
            return entry, f"is a link to {name}, which {'leads back to it' if name in seen else 'is not there'}"
        entry = found[name]
        seen.add(name)
    return entry, ""
