"""The sources that meddiff knows by name; a source's module is imported only when it is asked for."""

from importlib import import_module

from pydantic import ValidationError

from infra.errors import UserError
from preprocessing.sources.base import Source, SourceInfo

SOURCES: dict[str, tuple[str, str]] = {
    "folder": ("preprocessing.sources.folder", "FolderSource"),
    "phantom": ("preprocessing.sources.phantom", "PhantomSource"),
}


def source_infos() -> list[SourceInfo]:
    """The catalogue, sorted by name; each source's module names its entry `INFO`."""
    return [import_module(SOURCES[name][0]).INFO for name in sorted(SOURCES)]


def make_source(name: str, /, **options: object) -> Source:
    """The source of this name with its own options.

    Raises:
        UserError: the name is unknown, or an option is unknown, missing or no good.
    """
    if name not in SOURCES:
        raise UserError(f"there is no source {name!r}; known are {', '.join(sorted(SOURCES))}")
    module, maker = SOURCES[name]
    try:
        return getattr(import_module(module), maker)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "options"
        raise UserError(f"source {name}: {where}: {first['msg']}") from None
    except TypeError as error:
        raise UserError(f"source {name}: {error}") from None
