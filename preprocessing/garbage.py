"""Garbage of the data: manifests that are too old; stores, previews and segmentations that none of the others names.

The newest manifest of a recipe is kept, and so are the ones that a run was trained or judged on. A manifest that was
the newest within the grace period is kept as well: whoever opened it then may still be reading.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from infra.garbage import Garbage, gather, single
from infra.lake import Lake
from infra.stored_object import StoredObject
from preprocessing.case import CaseError, source_folder
from preprocessing.decisions import listed_names
from preprocessing.manifest import noted_fingerprint, read_manifest, read_table
from preprocessing.recipe import RECIPES, Recipe
from preprocessing.seal import seal_key
from preprocessing.store import open_case

MANIFEST = re.compile(r"manifests/([^/]+)/(\d+)\.parquet")
STORE = re.compile(r"(ct/.+?/[0-9a-f]{16}(?:-[0-9a-f]{8})?)\.(?:zarr/.+|seal\.json)", re.DOTALL)
COLUMNS = ("source", "case", "root", "status", "input", "key", "origin")
UNUSED = "in no kept manifest"
UNSEALED = "never sealed"


@dataclass(frozen=True)
class References:
    """What the kept manifests name: keys of stores and pictures, segmentations, recipes, and origins by source."""

    stores: set[str] = field(default_factory=set)
    previews: set[str] = field(default_factory=set)
    segmentations: set[str] = field(default_factory=set)
    recipes: set[str] = field(default_factory=set)
    origins: dict[str, set[str]] = field(default_factory=dict)


def manifest_garbage(
    lake: Lake, *, keep: int, cutoff: datetime, needed: Collection[str], old_recipes: bool
) -> tuple[list[Garbage], list[str]]:
    """The manifests that may go, and the keys of those that stay.

    Args:
        lake: whose.
        keep: so many of each recipe stay.
        cutoff: what was the newest of its recipe after it stays.
        needed: fingerprints of the data that the runs which stay were trained or judged on.
        old_recipes: let also the newest go of recipes whose version the code no longer writes.
    """
    garbage: list[Garbage] = []
    kept: list[str] = []
    folders: dict[str, list[StoredObject]] = {}
    for one in sorted(lake.objects("manifests"), reverse=True):
        if match := MANIFEST.fullmatch(one.key):
            folders.setdefault(match[1], []).append(one)
    noted = {one.key: noted_fingerprint(lake, one.key) for files in folders.values() for one in files}
    unknown = set(needed) - set(noted.values()) - {""}
    for folder, files in folders.items():
        stored = _stored_recipe(lake, files[0].key)
        outdated = bool(stored) and old_recipes and stored.get("version", 0) < Recipe().version
        recipe = _recipe(folder, stored)
        for place, one in enumerate(files):
            if outdated:
                may_go, why = one.modified < cutoff, f"of recipe version {stored['version']}"
            else:
                may_go, why = place >= keep and files[place - 1].modified < cutoff, f"{place} newer of its recipe"
            if may_go and noted[one.key] not in needed and not _is_read_otherwise(lake, recipe, one.key, unknown):
                garbage.append(single("manifest", one, why))
            else:
                kept.append(one.key)
    return garbage, kept


def _stored_recipe(lake: Lake, manifest: str) -> dict:
    """The recipe as a stored case of the manifest has it; empty where none can be opened."""
    rows = read_table(lake, manifest, ("key", "status"))
    for key in rows.loc[rows["status"] == "sealed", "key"][:3]:
        with suppress(CaseError, FileNotFoundError):
            return open_case(lake, key).record.recipe
    return {}


def _recipe(fingerprint: str, stored: dict) -> Recipe | None:
    known = {recipe().fingerprint: recipe() for recipe in RECIPES.values()}
    with suppress(ValueError):
        found = known.get(fingerprint) or Recipe.model_validate(stored)
        return found if found.fingerprint == fingerprint else None
    return None


def _is_read_otherwise(lake: Lake, recipe: Recipe | None, key: str, wanted: Collection[str]) -> bool:
    """Whether a manifest read without exclusions (`paper_like`) has one of these fingerprints, or may have."""
    if not wanted:
        return False
    if recipe is None:
        return True
    like = recipe.replace(split=recipe.split.replace(paper_like=True))
    match = MANIFEST.fullmatch(key)
    assert match
    return read_manifest(lake, like, int(match[2])).fingerprint in wanted


def read_references(lake: Lake, manifests: Sequence[str]) -> References:
    """What these manifests name."""
    found = References()
    for key in manifests:
        recipe = key.split("/")[1]
        found.recipes.add(recipe)
        rows = read_table(lake, key, COLUMNS)
        sealed = rows["status"] == "sealed"
        found.stores.update(store for store in rows["key"] if store)
        names = listed_names(rows)
        for source, name, input_, is_sealed in zip(rows["source"], names, rows["input"], sealed, strict=True):
            if is_sealed:
                folder = source_folder(source)
                found.previews.add(f"previews/{recipe}/{folder}/{name}-{input_}.png")
                found.segmentations.add(f"{folder}/{quote(name, safe='/ +,=@')}/{input_}.nii.gz")
        for source, origin in zip(rows["source"], rows["origin"], strict=True):
            found.origins.setdefault(source_folder(source), set()).update(origin)
    return found


def store_garbage(lake: Lake, references: References, cutoff: datetime) -> Iterator[Garbage]:
    """The stores that no kept manifest has, and what their writers left of others."""

    def thing_of(key: str) -> str:
        match = STORE.fullmatch(key)
        return f"{match[1]}.zarr" if match and f"{match[1]}.zarr" not in references.stores else ""

    for key, found in gather(lake.objects("ct"), thing_of, seal_key).items():
        if found.newest < cutoff:
            yield found.as_garbage("store", key, UNUSED if found.sealed else UNSEALED, seal=seal_key(key))


def picture_garbage(lake: Lake, references: References, cutoff: datetime) -> Iterator[Garbage]:
    """Previews and segmentations of stores that no kept manifest has, and contact sheets of recipes without any."""
    for one in lake.objects("previews"):
        _, recipe, *rest = one.key.split("/")
        is_used = recipe in references.recipes if len(rest) == 1 else one.key in references.previews
        if not is_used and one.modified < cutoff:
            yield single("preview", one, UNUSED)
    for one in lake.objects("segmentations"):
        if one.key.split("/", 2)[2] not in references.segmentations and one.modified < cutoff:
            yield single("segmentation", one, UNUSED)
