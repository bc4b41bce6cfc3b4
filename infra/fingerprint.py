"""Fingerprints: 32 hex characters that are equal exactly where the canonical JSON is equal."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space; refuses NaN, infinity and anything JSON has no word for.

    Raises:
        ValueError: a float is not finite.
        TypeError: a value (a set, a path, an array) has no canonical JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def fingerprint(value: Any) -> str:
    """32 hex characters (128 bits of SHA-256) over the canonical JSON of value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def digest(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex characters."""
    return hashlib.sha256(data).hexdigest()
