"""Selection: which of a source's cases an ingest takes, by number, licence and name, and which it converts again."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pydantic import Field, field_validator

from infra.config import Config
from infra.errors import UserError
from infra.lake import Lake
from preprocessing.case import Case
from preprocessing.licences import LicencePolicy, refusal
from preprocessing.sources.base import SourceInfo


class Selection(Config):
    """By default every case, for research; a licence that forbids it is a reason to quarantine, never a silent gap.

    What `force` and `since` convert again becomes part of the next manifest, whose fingerprint is another only where
    other bytes come out.
    """

    limit: int | None = Field(None, ge=1, description="only so many cases of each source, the same ones every time")
    licence_policy: LicencePolicy = Field("research", description="what the data will be used for")
    publish_no_derivatives: bool = Field(
        False, description="put changed copies of no-derivatives data into a bucket, which must then be private"
    )
    only: tuple[str, ...] = Field(
        (), description="only these cases, by the ids that their source lists; all others stay as they are"
    )
    force: bool = Field(False, description="convert again what is unchanged: the cases of `only`, or all")
    since: datetime | None = Field(
        None,
        description="convert again what was last converted before this moment (UTC where it has no zone), and what is "
        "quarantined; the same moment again does what is left of it",
    )

    @field_validator("since")
    @classmethod
    def _in_utc(cls, since: datetime | None) -> datetime | None:
        return since.replace(tzinfo=UTC) if since and since.tzinfo is None else since

    def stale_before(self) -> datetime | None:
        """Stores written before this moment are to be made again; None where none are.

        Raises:
            UserError: the moment has not come yet, so that it would be true of every store for ever.
        """
        now = datetime.now(UTC)
        if self.since and self.since > now:
            raise UserError(f"since {self.since.isoformat()} is in the future; give a moment that has passed")
        return now if self.force else self.since

    def require(self, info: SourceInfo, lake: Lake) -> None:
        """Refuse a whole source before anything of it is pulled; one without a licence of its own is judged by case.

        Raises:
            UserError: its licence does not allow what is asked.
        """
        if info.licence and (reason := self._refusal(info.licence, lake)):
            raise UserError(f"source {info.name} is left out: its {reason}")

    def problem(self, case: Case, lake: Lake) -> str:
        """Why a case may not come in; "" where it may."""
        reason = self._refusal(case.licence, lake)
        return f"its {reason}" if reason else ""

    def _refusal(self, licence: str, lake: Lake) -> str:
        shared = lake.local_path("") is None
        return refusal(licence, self.licence_policy, shared=shared, publish_no_derivatives=self.publish_no_derivatives)


EVERYTHING = Selection()


def selected(cases: Sequence[Case], known: Collection[str], selection: Selection, lake: Lake) -> list[Case]:
    """The cases to take, in their order: with a limit the first ones by a hash of their names, and all known ones.

    `known` are the ids that the manifest has: a limit never withdraws a case, nor hides one that is asked for by name.
    """
    if selection.limit is not None and len(cases) > selection.limit:
        first = {case.id for case in sorted(cases, key=_place)[: selection.limit]}
        cases = [case for case in cases if case.id in first or case.id in known or case.id in selection.only]
    problems: dict[str, str] = {}
    out = []
    for case in cases:
        if case.licence not in problems:
            problems[case.licence] = selection.problem(case, lake)
        why = problems[case.licence]
        out.append(case.model_copy(update={"problem": why}) if why and not case.problem else case)
    return out


def _place(case: Case) -> bytes:
    return hashlib.sha256(f"{case.source}\n{case.id}".encode()).digest()
