"""What this process holds of memory, in bytes.

Read from /proc: `ru_maxrss` of a child would begin at what its parent held when it was started.
"""

import re
from pathlib import Path


def resident_bytes() -> int:
    """What it holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most that it ever held."""
    return _status("VmHWM")


def _status(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
