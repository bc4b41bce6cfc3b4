"""A part of an object, for reads of many parts at once."""

from typing import NamedTuple


class ByteRange(NamedTuple):
    """The bytes [start, stop) of the object of a key."""

    key: str
    start: int
    stop: int
