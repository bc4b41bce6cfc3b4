"""Origins: where a case's files came from, stored without a user's paths.

A file in the lake is stored as `lake:<key>`, a file under a source's root folder as `<root id>:<relative path>`, a url
as it is. What a root id means on this machine lies in `roots.json` of the state folder; elsewhere it stays unresolved.
"""

import fcntl
import json
import re
from pathlib import Path, PurePath

from infra.fingerprint import fingerprint
from infra.lake import Lake
from infra.settings import Settings, absolute_url

IN_LAKE = "lake:"
ROOT_ID = re.compile(r"([0-9a-f]{12}):(.*)", re.DOTALL)


def source_root(source: object) -> Path | None:
    """The folder that a source reads in place: its `path`, absolute; None for one that fetches."""
    path = getattr(source, "path", None)
    return Path(absolute_url(str(path))) if path else None


def root_id(root: Path) -> str:
    """12 hex characters that stand for an absolute folder."""
    return fingerprint(str(root))[:12]


def several_roots(source: object) -> bool:
    """Whether other folders may stand beside this one under the source's name; not where the user gave it a name."""
    return source_root(source) is not None and not getattr(source, "name", "")


def stored_origin(path: str, lake: Lake, root: Path | None) -> str:
    """How an origin is written into the manifest."""
    for folder, prefix in ((lake.local_path(""), IN_LAKE), (root, f"{root_id(root)}:" if root else "")):
        if folder is not None and PurePath(path).is_relative_to(folder):
            return prefix + PurePath(path).relative_to(folder).as_posix()
    if "://" in path or PurePath(path).is_absolute():
        return path
    return IN_LAKE + path  # a source that fetches lists where in the lake the file will be


def absolute_origin(origin: str, lake: Lake, roots: dict[str, str]) -> str:
    """The absolute path or url of a stored origin; as stored where this machine does not know its root."""
    if origin.startswith(IN_LAKE):
        return lake.url_of(origin.removeprefix(IN_LAKE))
    if (match := ROOT_ID.fullmatch(origin)) and match[1] in roots:
        return str(Path(roots[match[1]]) / match[2])
    return origin


def remember_root(root: Path, settings: Settings) -> None:
    """Note the folder in the state folder, so that its origins can be resolved here."""
    if known_roots(settings).get(root_id(root)) == str(root):
        return
    file = settings.home / "roots.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two ingests at once neither forgets the other's folder
        partial = file.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(known_roots(settings) | {root_id(root): str(root)}, indent=1))
        partial.replace(file)


def known_roots(settings: Settings) -> dict[str, str]:
    """{root id: absolute folder} of this machine."""
    try:
        return json.loads((settings.home / "roots.json").read_text())
    except FileNotFoundError:
        return {}
