"""The meter: all bytes that travel inside its block, from every thread, and none from outside."""

from infra.meter import metered
from infra.remote import Remote
from infra.transfer import pull, pull_many


def test_pulled_bytes_count_inside_the_block_and_only_once(tmp_path, lake):
    files = []
    for n in range(3):
        (tmp_path / f"{n}.bin").write_bytes(bytes(1000 + n))
        files.append((Remote(url=str(tmp_path / f"{n}.bin")), f"raw/source/v1/{n}.bin"))
    with metered() as first:
        assert all(result.received for _, result in pull_many(lake, files[:2]))
    with metered() as second:
        pull(lake, *files[0])
    pull(lake, *files[2])
    assert (first.received, second.received) == (2001, 0)
