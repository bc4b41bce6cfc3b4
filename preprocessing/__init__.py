"""The volume: from any CT to one sealed, chunked case."""
