"""A stored object: what one listing of the lake says of each of its objects."""

from datetime import datetime
from typing import NamedTuple


class StoredObject(NamedTuple):
    """Key, bytes, and when it was written or touched last, by the clock of the storage, in UTC."""

    key: str
    size: int
    modified: datetime
