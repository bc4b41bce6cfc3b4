"""What a source is: something that lists cases cheaply and fetches one case's files when asked."""

from typing import Literal, Protocol, runtime_checkable

from infra.config import Config
from infra.lake import Lake
from preprocessing.case import Case, RegionName


class SourceInfo(Config):
    """A source's entry in the catalogue; `how` says in one sentence what a user has to do to get it."""

    name: str
    title: str
    regions: tuple[RegionName, ...] = ()
    licence: str = "unknown"
    citation: str = ""
    access: Literal["open", "token", "registration", "local"] = "open"
    size: str = ""
    cases: int | None = None
    how: str = ""


@runtime_checkable
class Source(Protocol):
    """A picklable object that a worker in another process can ask for one case's files."""

    info: SourceInfo

    def cases(self) -> list[Case]:
        """Every case, in a stable order, without decoding a voxel; what is wrong with one stands in `Case.problem`.

        Raises:
            UserError: nothing can be listed at all (no such folder, a wrong option).
        """
        ...

    def fetch(self, case: Case, lake: Lake) -> Case:
        """The case with paths that can be opened here; a remote source brings files to `raw/<source>/…` first.

        Raises:
            CaseError: the files cannot be had.
        """
        ...
