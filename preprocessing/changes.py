"""Changes: what a source lists now against the rows that the manifest has of it.

Whether a case changed is decided from its version token alone: nothing of it is read, and of the manifest only the
columns that this takes, `PLANNED`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pandas as pd

from preprocessing.case import Case
from preprocessing.convert import UNEXPECTED
from preprocessing.decisions import listed_names
from preprocessing.identity import IdentifiedSource
from preprocessing.manifest import Manifest
from preprocessing.origins import root_id, several_roots, source_root
from preprocessing.sources.base import Source


class Seen(Protocol):
    """What has to be known of a case that was ingested, to tell whether it changed."""

    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str | None: ...  # noqa: D102


class Known(NamedTuple):
    """A case as the manifest has it."""

    version: str
    status: str
    reason: str | None
    declared: str


@dataclass
class Changes:
    """The cases that a source lists, by what became of them; false where nothing did.

    `withdrawn` are ids that it lists no more, `known` is what the manifest has by id. `renoted` are columns of
    unchanged cases' rows that nevertheless have to say something else, by id. `again` are unchanged cases that are to
    be converted nevertheless; `left` are ids whose rows stay as they are, whatever became of the cases, because only
    others were asked for.
    """

    unchanged: list[Case] = field(default_factory=list)
    changed: list[Case] = field(default_factory=list)
    new: list[Case] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    renoted: dict[str, dict[str, str]] = field(default_factory=dict)
    again: list[Case] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.pending or self.withdrawn or self.renoted)

    @property
    def pending(self) -> list[Case]:
        """The cases that have to be read."""
        return [*self.changed, *self.new, *self.again]

    @property
    def kept(self) -> list[str]:
        """The ids whose rows stay, but for what is renoted."""
        return [*(case.id for case in self.unchanged), *self.left]


def find_changes(known: dict[str, Known], cases: Sequence[Case], source: Source) -> Changes:
    """What has to be done where a source lists these cases, no two of them under one id, and these are `known`."""
    found = Changes(known=known)
    for case in cases:
        row = known.get(case.id)
        kind = found.new if row is None else found.unchanged if is_unchanged(case, row) else found.changed
        kind.append(case)
    found.withdrawn = sorted(known.keys() - {case.id for case in cases})
    noted = ((case.id, _noted_anew(known[case.id], case, source)) for case in found.unchanged)
    found.renoted = {name: columns for name, columns in noted if columns}
    return found


def _noted_anew(row: Known, case: Case, source: Source) -> dict[str, str]:
    """What only the source knows of an unchanged case and its row does not say."""
    now = {"declared": case.split}
    if row.reason and isinstance(source, IdentifiedSource):
        now["reason"] = source.reason(row.reason, case)
    return {column: value for column, value in now.items() if getattr(row, column) != value}


def known_cases(manifest: Manifest, source: Source) -> dict[str, Known]:
    """What the manifest has of a source, of its own folder where it has several, by the id that the source lists."""
    rows = rows_of(manifest, source)
    columns = (rows[name] for name in Known._fields)
    return dict(zip(listed_names(rows), map(Known._make, zip(*columns, strict=True)), strict=True))


def rows_of(manifest: Manifest, source: Source) -> pd.DataFrame:
    """The rows that the manifest has of a source, of its own folder where it has several."""
    rows = manifest.rows[manifest.rows["source"] == source.info.name]
    root = root_of(source)
    return rows[rows["root"] == root] if root else rows


def is_unchanged(case: Case, row: Seen) -> bool:
    """Whether nothing of a listed case has to be read, given its row: same token, and not refused by accident."""
    if not case.version or row.version != case.token:
        return False
    return row.status == "sealed" or not (row.reason or "").startswith(UNEXPECTED)


def without_namesakes(cases: Sequence[Case]) -> list[Case]:
    """Every case under a name of its own; a second one of a name is kept as a problem, never dropped."""
    seen: Counter[str] = Counter()
    out = []
    for case in cases:
        seen[case.id] += 1
        if seen[case.id] > 1:
            problem = f"{seen[case.id]} cases of source {case.source} are called {case.id}; rename one"
            case = case.replace(id=f"{case.id}#{seen[case.id]}", problem=problem)
        out.append(case)
    return out


def root_of(source: Source) -> str:
    """The id of the folder in the rows of a source that may have several; "" for every other source."""
    if isinstance(source, IdentifiedSource):
        return source.root if several_roots(source.source) else ""
    folder = source_root(source)
    return root_id(folder) if folder and several_roots(source) else ""
