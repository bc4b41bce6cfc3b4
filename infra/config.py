"""The one base class of every config model: frozen, strict about unknown fields, free of sets."""

from typing import Self

from pydantic import BaseModel, ConfigDict

from infra.fingerprint import fingerprint


class Config(BaseModel):
    """A frozen config model; equal values have equal fingerprints in every process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def fingerprint(self) -> str:
        """32 hex characters over the model's canonical JSON."""
        return fingerprint(self.model_dump(mode="json"))

    def replace(self, **changes: object) -> Self:
        """A validated copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})
