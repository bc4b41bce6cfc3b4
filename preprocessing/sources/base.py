"""What a source is: something that lists cases cheaply and fetches one case's files when asked."""

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from infra.config import Config
from infra.fetch import Progress
from infra.lake import Lake
from preprocessing.case import Case, RegionName

Access = Literal["open", "token", "registration", "local"]


class SourceInfo(Config):
    """A source's entry in the catalogue; `how` says in one sentence what a user has to do to get it."""

    name: str
    title: str
    regions: tuple[RegionName, ...] = ()
    licence: str = "unknown"
    citation: str = ""
    access: Access = "open"
    size: str = ""
    cases: int | None = None
    how: str = ""
    url: str = ""


@runtime_checkable
class Source(Protocol):
    """A picklable object that a worker in another process can ask for one case's files."""

    @property
    def info(self) -> SourceInfo:
        """The catalogue's entry."""
        ...

    def cases(self, lake: Lake | None = None, progress: Progress | None = None) -> list[Case]:
        """Every case, in a stable order, without decoding a voxel; what is wrong with one stands in `Case.problem`.

        What has to be pulled before anything can be listed (an archive) goes to `raw/<source>/…` of the lake first,
        and `progress` is told how far that is.

        Raises:
            UserError: nothing can be listed at all (no such folder, a wrong option, no lake to pull to).
        """
        ...

    def fetch(self, case: Case, lake: Lake, scratch: Path) -> Case:
        """The case with paths that can be opened here; a remote source brings files to `raw/<source>/…` first.

        What is needed only while the case is converted goes to the folder `scratch`, which its owner removes.

        Raises:
            CaseError: the files cannot be had.
        """
        ...

    def is_listed(self, lake: Lake | None) -> bool:
        """Whether `cases` would answer without pulling an archive first."""
        ...

    def finish(self, lake: Lake) -> None:
        """After an ingest: drop what need not stay."""
        ...
