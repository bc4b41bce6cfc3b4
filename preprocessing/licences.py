"""Licences: what the terms of a data set allow, read from the short name that its host gives.

A policy decides over cases before a byte is pulled. What nobody has written down is taken for research only.
"""

import re
from typing import Literal, NamedTuple

LicencePolicy = Literal["research", "commercial"]
OPEN = re.compile(r"^(CC0|CC[ -]BY|Apache|MIT\b|BSD|public domain)", re.IGNORECASE)


class Terms(NamedTuple):
    """Whether a licence allows commercial use, and to give changed copies to others."""

    commercial: bool
    derivatives: bool


def terms(licence: str) -> Terms:
    """The terms of a licence's short name, e.g. `CC BY-NC-ND 4.0`; unknown names allow research alone."""
    parts = re.split(r"[ -]", licence.upper())
    return Terms(bool(OPEN.match(licence)) and "NC" not in parts, "ND" not in parts)


def refusal(licence: str, policy: LicencePolicy, *, shared: bool, publish_no_derivatives: bool = False) -> str:
    """Why data under a licence must stay out of a lake; "" where they may come in.

    `shared` marks a lake that others can read (a bucket): changed copies of a no-derivatives set are kept out of it.
    """
    allowed = terms(licence)
    if policy == "commercial" and not allowed.commercial:
        return f"licence {licence!r} allows no commercial use; ingest it under --license-policy research"
    if shared and not allowed.derivatives and not publish_no_derivatives:
        return (
            f"licence {licence!r} forbids to publish changed copies, and the lake is a bucket that others may read; "
            "use a local lake, or --publish-no-derivatives where your bucket is private"
        )
    return ""
