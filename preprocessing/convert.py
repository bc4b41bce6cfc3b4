"""Converting: one case from its files to a sealed store, and the manifest's row of it.

What is wrong with a case becomes a quarantined row with the reason; what is wrong with the lake (no space, no
permission, no connection) ends the run with a sentence, because every further case would fail as well.
"""

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import UserError
from infra.lake import Lake, open_lake, storage_errors
from preprocessing.body import body_planes, complete_anatomy
from preprocessing.case import AbsentError, Case, CaseError
from preprocessing.conversions import newest_conversion, other_key, take
from preprocessing.decoding.data_files import data_files, with_data_files
from preprocessing.decoding.decode import decode_labels, read_companion, read_image
from preprocessing.duplicates.signature import coarse_level, signature
from preprocessing.geometry import Geometry
from preprocessing.inputs import case_key, file_checksums, input_of
from preprocessing.layout import Pyramid
from preprocessing.manifest import ManifestRow
from preprocessing.origins import source_root, stored_origin
from preprocessing.preview import preview, preview_key
from preprocessing.pyramid import downsample2, downsample2_labels, resize_cube
from preprocessing.quality import audit, check_companion, in_hu
from preprocessing.recipe import Recipe
from preprocessing.regions import RegionExtent
from preprocessing.regions.split import split_regions
from preprocessing.resample import resample, resample_onto
from preprocessing.seal import read_seal
from preprocessing.segmenter import with_anatomy
from preprocessing.sources.base import Source
from preprocessing.store import CaseRecord, open_case, seal_case, write_case
from preprocessing.volume import Volume

logger = logging.getLogger(__name__)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
UNEXPECTED = "unexpected: "  # such a case is tried again by the next ingest


def convert_case(
    case: Case,
    source: Source,
    recipe: Recipe,
    lake: Lake,
    wording: Callable[[str], str] = str,
    stale_before: datetime | None = None,
) -> ManifestRow:
    """Fetch, read, convert and seal one case; a case that is already sealed from the same input is not written again.

    Findings are stored as `wording` puts them. A store that was written before the moment `stale_before` is made again.

    Raises:
        UserError: the lake cannot be written; nothing of the case counts as done.
    """
    try:
        return _convert(case, source, recipe, lake, wording, stale_before)
    except AbsentError as error:
        return quarantined_row(case, lake, source, f"{UNEXPECTED}{error}")
    except CaseError as error:
        return quarantined_row(case, lake, source, str(error))
    except UserError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(_no_space(case, lake)) from error
        return _unexpected(case, lake, source, error)
    except Exception as error:  # noqa: BLE001 - whatever a strange file provokes, the other cases go on
        return _unexpected(case, lake, source, error)


def _convert(
    listed: Case,
    source: Source,
    recipe: Recipe,
    lake: Lake,
    wording: Callable[[str], str],
    stale_before: datetime | None,
) -> ManifestRow:
    if listed.problem:
        raise CaseError(listed.problem)
    with tempfile.TemporaryDirectory(prefix="meddiff-case-") as scratch:
        case = source.fetch(listed, lake, Path(scratch))
        key, seal = _sealed(case, recipe, lake, wording, stale_before)
        return _sealed_row(case, source, lake, key, seal).replace(origin=_origin(listed, case, source, lake))


def _sealed(
    case: Case, recipe: Recipe, lake: Lake, wording: Callable[[str], str], stale_before: datetime | None
) -> tuple[str, str]:
    """Where a fetched case is stored and its seal's digest; it is converted unless that is there, and new enough."""
    checksums = file_checksums(case)
    key = case_key(recipe, case, input_of(case, checksums))
    last = newest_conversion(lake, key)
    is_new = last is not None and (stale_before is None or last.written >= stale_before)
    if last and last.seal and is_new and take(lake, last):
        return last.key, last.seal.digest
    volume, source_geometry = read_resampled(case, recipe.spacing_mm)
    volume = with_anatomy(volume, case, input_of(case, checksums), recipe, lake)
    volume = replace(volume, findings=tuple(map(wording, volume.findings)))
    pyramid, regions, findings = build_pyramid(volume, case, recipe)
    record = _record(case, recipe, volume, source_geometry, pyramid, regions, findings, checksums)
    if last and (first := read_seal(lake, key)) and (digest := _digest(key, pyramid, record, recipe)) != first.digest:
        key = other_key(key, digest)
    with _lake_trouble(case, lake):
        write_case(lake, key, pyramid, record, recipe)
        lake.write(preview_key(recipe, case.source, case.id, record.input), preview(pyramid, regions))
        return key, seal_case(lake, key, record)


def _digest(key: str, pyramid: Pyramid, record: CaseRecord, recipe: Recipe) -> str:
    """The digest that the seal of these arrays has, found in a folder that nobody else sees."""
    with tempfile.TemporaryDirectory(prefix="meddiff-again-") as folder:
        place = open_lake(folder)
        write_case(place, key, pyramid, record, recipe)
        return seal_case(place, key, record)


def read_resampled(case: Case, spacing_mm: float) -> tuple[Volume, Geometry]:
    """The audited case with all its arrays at a spacing, and the geometry of its source.

    One array of the source after the other is read, resampled and let go: of whole images no more than two are held.

    Raises:
        CaseError: a file of the case cannot be used.
    """
    scan = audit(read_image(case))
    source, volume = scan.geometry, resample(scan, spacing_mm)
    grid = volume.geometry
    del scan
    anatomy, lesion, findings = decode_labels(case, source)
    kind = case.anatomy if anatomy is not None else "none"
    anatomy, lesion = (
        None if labels is None else resample_onto(labels, source, grid, nearest=True) for labels in (anatomy, lesion)
    )
    companions = {name: _companion(name, path, source, volume) for name, path in case.companions}
    volume = replace(volume, anatomy=anatomy, anatomy_kind=kind, lesion=lesion, companions=companions)
    return replace(volume, findings=(*volume.findings, *findings)), source


def _companion(name: str, path: str, source: Geometry, volume: Volume) -> NDArray[np.int16]:
    hu = resample_onto(in_hu(read_companion(path, source), volume.audit), source, volume.geometry)
    check_companion(name, hu, volume.image)
    return hu


def build_pyramid(
    volume: Volume, case: Case, recipe: Recipe
) -> tuple[Pyramid, tuple[RegionExtent, ...], tuple[str, ...]]:
    """All arrays of a stored case from a volume at the recipe's spacing, its regions, and findings of the split."""
    spacing = volume.geometry.spacing_mm[0]
    anatomy = np.zeros(volume.image.shape, np.uint8) if volume.anatomy is None else volume.anatomy
    body = body_planes(volume.image, spacing, recipe.body_threshold_hu)
    complete_anatomy(body, anatomy, volume.anatomy_kind)
    regions, findings = split_regions(
        anatomy, volume.geometry, volume.image, case.declared_regions, volume.anatomy_kind
    )
    levels = range(recipe.levels - 1)
    pyramid = Pyramid(
        geometry=volume.geometry,
        image=_halved(volume.image, downsample2, levels),
        anatomy=_halved(anatomy, downsample2_labels, levels),
        lesion=None if volume.lesion is None else _halved(volume.lesion, downsample2_labels, levels),
        companions=volume.companions,
        thumbnails={},
    )
    pyramid.thumbnails.update({region.name: _thumbnail(pyramid, region, recipe) for region in regions})
    return pyramid, regions, findings


def _halved(array: NDArray, halve: Callable[[NDArray], NDArray], times: range) -> tuple[NDArray, ...]:
    levels = [array]
    for _ in times:
        levels.append(halve(levels[-1]))
    return tuple(levels)


def _thumbnail(pyramid: Pyramid, region: RegionExtent, recipe: Recipe) -> dict[str, NDArray]:
    part = slice(region.z_start, region.z_stop)
    cubes = {"image": resize_cube(pyramid.image[0][part], recipe.thumbnail_size)}
    for name, levels in (("anatomy", pyramid.anatomy), ("lesion", pyramid.lesion)):
        if levels is not None:
            cubes[name] = resize_cube(levels[0][part], recipe.thumbnail_size, labels=True)
    return cubes


def _record(
    case: Case,
    recipe: Recipe,
    volume: Volume,
    source_geometry: Geometry,
    pyramid: Pyramid,
    regions: tuple[RegionExtent, ...],
    findings: tuple[str, ...],
    checksums: dict[str, str],
) -> CaseRecord:
    return CaseRecord(
        source=case.source,
        case=case.id,
        patient=case.patient,
        input=input_of(case, checksums),
        recipe=recipe.model_dump(mode="json"),
        recipe_fingerprint=recipe.fingerprint,
        regions=regions,
        anatomy=volume.anatomy_kind,
        lesion=pyramid.lesion is not None and bool(pyramid.lesion[0].any()),
        licence=case.licence,
        citation=case.citation,
        source_geometry=source_geometry.to_dict(),
        geometry=pyramid.geometry.to_dict(),
        companions=tuple(sorted(pyramid.companions)),
        audit=volume.audit,
        findings=(*volume.findings, *findings),
        checksums=checksums,
        signature=signature(pyramid.image[coarse_level(pyramid.geometry.spacing_mm[0], len(pyramid.image))]),
    )


def _sealed_row(case: Case, source: Source, lake: Lake, key: str, seal: str) -> ManifestRow:
    record = open_case(lake, key).record
    return _row(case, source, lake).replace(
        status="sealed",
        reason=None,
        input=record.input,
        key=key,
        seal=seal,
        regions=tuple(region.name for region in record.regions),
        anatomy=record.anatomy,
        lesion=record.lesion,
        companions=record.companions,
        signature=record.signature,
    )


def quarantined_row(case: Case, lake: Lake, source: Source, reason: str) -> ManifestRow:
    """The row of a case that was refused; where the files lie on this machine is no part of the reason."""
    for folder in (lake.url, source_root(source)):
        reason = reason.replace(f"{folder}/", "") if folder else reason
    return _row(case, source, lake).replace(status="quarantined", reason=reason, anatomy="none", lesion=False)


def _row(case: Case, source: Source, lake: Lake) -> ManifestRow:
    root = source_root(source)
    return ManifestRow(
        source=case.source,
        case=case.id,
        patient=case.patient,
        status="quarantined",
        licence=case.licence,
        citation=case.citation,
        origin=tuple(stored_origin(path, lake, root) for path in with_data_files(case.origin)),
        version=case.token,
    )


def _origin(listed: Case, fetched: Case, source: Source, lake: Lake) -> tuple[str, ...]:
    """Where a case's files are for good, as its source lists them, each with what its header names beside it."""
    root = source_root(source)
    here = fetched.origin if len(fetched.origin) == len(listed.origin) else ()
    paths: list[str] = []
    for number, name in enumerate(listed.origin):
        paths.append(name)
        if here:
            path = Path(here[number])
            beside = (os.path.relpath(data, path.parent) for data in data_files(path))
            paths += [f"{name.rpartition('/')[0]}/{data}" for data in beside]
    return tuple(stored_origin(path, lake, root) for path in paths)


def _unexpected(case: Case, lake: Lake, source: Source, error: Exception) -> ManifestRow:
    logger.exception("%s/%s could not be converted", case.source, case.id)
    return quarantined_row(case, lake, source, f"{UNEXPECTED}{type(error).__name__}: {error}")


def _no_space(case: Case, lake: Lake) -> str:
    return (
        f"no space is left for {case.source}/{case.id} in {lake.url}; free some or name another lake and run again: "
        "what is sealed stays, the rest is done then"
    )


@contextmanager
def _lake_trouble(case: Case, lake: Lake) -> Generator[None]:
    try:
        yield
    except storage_errors(lake.url) as error:
        if getattr(error, "errno", None) in NO_SPACE:
            raise UserError(_no_space(case, lake)) from error
        raise UserError(f"the lake at {lake.url} cannot be written ({error}); {case.source}/{case.id} waits") from error
