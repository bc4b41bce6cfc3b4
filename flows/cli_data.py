"""Data verbs of the command: ingest, cases, sources."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from flows import terminal
from flows.counts import counts_line, unchanged_line
from flows.params import RecipeName, SourceSpec
from flows.plan import ingest_status
from flows.progress import tell
from flows.session import flows_here, open_session
from infra.errors import UserError
from infra.lake import Lake, open_lake
from infra.remote import TransferError
from preprocessing.licences import LicencePolicy
from preprocessing.manifest import Manifest, case_rows, manifest_numbers, read_manifest
from preprocessing.recipe import RECIPES, Recipe
from preprocessing.selection import Selection
from preprocessing.sources.base import Source
from preprocessing.sources.registry import KNOWN, OWN, SOURCES, is_source, source_infos

LakeOption = Annotated[
    str, typer.Option("--lake", help="Folder or s3:// url; default: MEDDIFF_LAKE, then MEDDIFF_HOME/lake.")
]
RecipeOption = Annotated[RecipeName, typer.Option("--recipe", help="How volumes are stored.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Names as `meddiff sources` lists them.")],
    path: Annotated[Path | None, typer.Option(help="folder: the directory of CTs.")] = None,
    name: Annotated[str | None, typer.Option(help="folder: its name in the lake; two folders may share none.")] = None,
    identified: Annotated[
        bool,
        typer.Option(
            "--identified",
            help="folder: keyed hashes in place of names, patients and paths, in the lake and in Prefect.",
        ),
    ] = False,
    patients: Annotated[int | None, typer.Option(min=1, help="phantom: how many patients.")] = None,
    seed: Annotated[int | None, typer.Option(help="phantom: another seed, other patients.")] = None,
    archive: Annotated[
        list[Path] | None, typer.Option(help="public: an archive or unpacked folder that you bring; may be repeated.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="public: a url or folder with the same files.")] = None,
    keep_raw: Annotated[
        bool | None, typer.Option("--keep-raw/--no-keep-raw", help="public: whether what was pulled stays in raw/.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many cases of each source, always the same.")] = None,
    licence_policy: Annotated[
        LicencePolicy, typer.Option("--license-policy", help="What the data is for; other licences stay out.")
    ] = "research",
    publish_no_derivatives: Annotated[
        bool, typer.Option("--publish-no-derivatives", help="Let no-derivatives data into a bucket, which is private.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CASE", help="Only this case, others stay as they are; may be repeated; one source."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Convert again what is unchanged: the cases of --only, or all.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Convert again what was last converted before this moment (UTC), and what is quarantined; the same "
            "command again does what is left."
        ),
    ] = None,
    lake: LakeOption = "",
    recipe: RecipeOption = "paper",
) -> None:
    """Pull and convert sources into the lake; what is unchanged is not read again."""
    if only and len(sources) > 1:
        raise typer.BadParameter(f"--only belongs to one source, but {', '.join(sources)} are named")
    if force and since:
        raise typer.BadParameter("--force converts whatever its age; give it or --since, not both")
    directory = path and str(path.expanduser().absolute())
    folder = _given(path=directory, name=name, identified=identified or None)
    paths = [str(one.expanduser().absolute()) for one in archive or ()] or None
    public = _given(archive=paths, mirror=mirror, keep_raw=keep_raw)
    specs = source_specs(sources, folder, _given(patients=patients, seed=seed), public)
    selection = Selection(
        limit=limit,
        licence_policy=licence_policy,
        publish_no_derivatives=publish_no_derivatives,
        only=tuple(only or ()),
        force=force,
        since=since,
    )
    settings = open_session(lake)
    place = open_lake(settings.lake_url)
    specs = tuple(spec.in_hiding(place, settings) for spec in specs)
    before = read_manifest(place, RECIPES[recipe]())
    made = [_made(spec) for spec in specs]
    settled = [_settled(place, before, source, selection) for source in made]
    lines = [unchanged_line(source.info.name, cases or 0) for source, cases in zip(made, settled, strict=True)]
    if None in settled:
        with flows_here(settings):
            from flows.ingest import IngestParams, ingest_ct
            from preprocessing.ingest_counts import SourceCounts

            done = ingest_ct(IngestParams(lake=place.url, recipe=recipe, sources=specs, selection=selection))
        if identified:
            hidden = next(str(spec.options["path"]) for spec in specs if spec.name == "folder")
            terminal.err().print(f"Prefect knows {directory} as path {hidden}, and so must a deployment", markup=False)
        lines = [counts_line(SourceCounts.model_validate(counts)) for counts in done["sources"]]
    for line in lines:
        terminal.out().print(line, markup=False)
    _summarise(place, before, read_manifest(place, RECIPES[recipe]()), [source.info.name for source in made])


def _made(spec: SourceSpec) -> Source:
    try:
        return spec.make()
    except UserError as error:
        if spec.name != "idc":
            raise
        raise typer.BadParameter(str(error)) from None  # a collection of this name does not exist


def _settled(lake: Lake, before: Manifest, source: Source, selection: Selection) -> int | None:
    """How many cases a source has of which nothing changed; None where a run has to see to it, or to report why not."""
    try:
        status = ingest_status(lake, before, source, selection)
    except TransferError:
        return None
    return status.cases if status.unchanged else None


def source_specs(
    names: list[str],
    folder: dict[str, str | bool],
    phantom: dict[str, int],
    public: dict[str, Any] | None = None,
) -> tuple[SourceSpec, ...]:
    """The sources of a command line, each with the options that are its own.

    Raises:
        typer.BadParameter: a name is unknown, or an option belongs to none of the sources, or one is missing.
    """
    for name in sorted(set(names)):
        if not is_source(name):
            raise typer.BadParameter(f"unknown source {name!r}; known: {KNOWN}")
    if "folder" in names and "path" not in folder:
        raise typer.BadParameter("source 'folder' needs --path DIR")
    if folder.get("name") in SOURCES:
        raise typer.BadParameter(f"--name {folder['name']} is another source's name; give a name of your own")
    others = [name for name in names if name not in OWN]
    if public and not others:
        raise typer.BadParameter(f"--{next(iter(public)).replace('_', '-')} is for public data sets; none is named")
    if public and "archive" in public and len(others) > 1:
        raise typer.BadParameter(f"--archive belongs to one data set, but {', '.join(others)} are named")
    options = {"folder": folder, "phantom": phantom}
    for owner, given in options.items():
        if given and owner not in names:
            raise typer.BadParameter(f"--{next(iter(given))} belongs to source {owner!r}, which is not named")
    return tuple(SourceSpec(name=name, options=dict(options[name] if name in OWN else public or {})) for name in names)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def cases(
    lake: LakeOption = "",
    recipe: Annotated[
        RecipeName | None, typer.Option("--recipe", help="Default: paper, or what the lake has instead.")
    ] = None,
    verified: Annotated[
        bool, typer.Option("--verify", help="First compare every stored byte with its seal; quarantine what differs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One row per case of the newest manifest: where it lies, what it holds, why it was refused."""
    settings = open_session(lake)
    place = open_lake(settings.lake_url, create=False)
    if verified:
        _verify(place, [recipe] if recipe else get_args(RecipeName))
    rows = case_rows(newest_manifest(place, recipe), place)
    if as_json:
        terminal.print_json(rows)
        return
    columns = ("source", "case", "status", "split", "regions", "anatomy", "lesion", "reason")
    lines = [[_cell(row[column]) for column in columns] for row in rows]
    terminal.out().print(terminal.table(f"{len(rows)} cases in {place.url}", columns, lines))


def _verify(lake: Lake, recipes: Sequence[RecipeName]) -> None:
    from preprocessing.verify import verify

    for name in recipes:
        with terminal.bars():
            damaged = verify(lake, RECIPES[name](), lambda done, total: tell("verify", done, total))
        for row in damaged:
            terminal.err().print(f"quarantined {row.source}/{row.case}: {row.reason}", markup=False)


def newest_manifest(lake: Lake, recipe: RecipeName | None) -> Manifest:
    """The newest manifest of a recipe; with none named, of the one that the lake has."""
    return read_manifest(lake, stored_recipe(lake, recipe))


def stored_recipe(lake: Lake, recipe: RecipeName | None) -> Recipe:
    """The recipe of this name; with none named, the first preset that the lake has data of, paper first."""
    names = [recipe] if recipe else sorted(get_args(RecipeName), key=lambda name: name != "paper")
    recipes = [RECIPES[name]() for name in names]
    return next((one for one in recipes if manifest_numbers(lake, one)), recipes[0])


def sources(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="All that is known of these.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The catalogue: region, size, licence and access; with names, also what to do to get them."""
    infos = [info.model_dump(mode="json") for info in source_infos()]
    if unknown := set(names or ()) - {info["name"] for info in infos}:
        raise typer.BadParameter(f"unknown source {min(unknown)!r}; `meddiff sources` lists them")
    chosen = [info for info in infos if not names or info["name"] in names]
    if as_json:
        terminal.print_json(chosen)
    elif names:
        for info in chosen:
            lines = [(field, _cell(value)) for field, value in info.items() if value]
            terminal.out().print(terminal.table("", ("", ""), lines))
    else:
        columns = ("name", "regions", "cases", "size", "licence", "access", "title")
        lines = [[_cell(info[column]) for column in columns] for info in chosen]
        terminal.out().print(terminal.table("sources; `meddiff sources NAME` says what to do", columns, lines))


def _summarise(lake: Lake, before: Manifest, after: Manifest, names: list[str]) -> None:
    out = terminal.out()
    rows = after.rows[after.rows["source"].isin(names)]
    refused = rows[rows["status"] == "quarantined"]
    for row in refused.to_dict("records"):
        terminal.err().print(f"quarantined {row['source']}/{row['case']}: {row['reason']}", markup=False)
    state = "unchanged" if after.fingerprint == before.fingerprint else f"manifest {after.number}"
    out.print(f"{len(rows) - len(refused)} cases sealed, {len(refused)} quarantined; {state}; lake {lake.url}")


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)


VERBS = (ingest, cases, sources)
