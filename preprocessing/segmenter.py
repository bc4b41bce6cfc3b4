"""Full anatomy for a volume whose source has none, where the recipe asks for it.

What the tool found is kept in the lake, created exclusively: whoever was first decides, so that a killed or doubled
conversion gets the same map, although a GPU does not give the same bytes twice. Organs that the source itself labels
stay the source's.
"""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from infra.fingerprint import fingerprint
from infra.lake import Lake
from infra.settings import Settings, load_settings
from preprocessing.anatomy import BACKGROUND, BODY
from preprocessing.case import Case, CaseError, source_folder
from preprocessing.decoding.decode import read_raster
from preprocessing.decoding.labels import whole_values
from preprocessing.geometry import Geometry
from preprocessing.recipe import Recipe, Segmenter
from preprocessing.totalsegmentator import Tool, ToolError, find_tool, run_tool
from preprocessing.volume import Volume


def require_segmenter(recipe: Recipe, cases: Sequence[Case], settings: Settings) -> None:
    """Make sure, before the first case is read, that what the recipe asks for can run here.

    Nothing is asked of this machine where the work is done by others (a Dask address): they say it themselves.

    Raises:
        UserError: the tool, its pinned version or its weights are missing and a case needs them.
    """
    if recipe.segmenter and not settings.dask_address and any(case.anatomy != "full" for case in cases):
        find_tool(recipe.segmenter, settings)


def segmentation_key(recipe: Recipe, case: Case, input_: str) -> str:
    """Where a case's segmentation lies: `segmentations/<tool, code and grid>/<source>/<case>/<input>.nii.gz`."""
    decides = recipe.model_dump(mode="json", include={"segmenter", "version", "spacing_mm"})
    folder = f"segmentations/{fingerprint(decides)}/{source_folder(case.source)}"
    return f"{folder}/{quote(case.id, safe='/ +,=@')}/{input_}.nii.gz"


def with_anatomy(scan: Volume, case: Case, input_: str, recipe: Recipe, lake: Lake) -> Volume:
    """The volume, on its own grid, with the anatomy that its recipe asks for; as it is where it has a full one.

    Raises:
        UserError: the tool is not there.
        ToolError: it failed on this case, or its map does not fit.
    """
    segmenter = recipe.segmenter
    if segmenter is None or scan.anatomy_kind == "full":
        return scan
    key = segmentation_key(recipe, case, input_)
    with tempfile.TemporaryDirectory(prefix="meddiff-segmenter-") as folder:
        path = Path(folder) / "anatomy.nii.gz"
        if not lake.exists(key):
            run_tool(find_tool(segmenter, load_settings()), segmenter, scan, path)
            _read_map(path, scan.geometry)
            with suppress(FileExistsError):
                lake.create(key, path.read_bytes())
        path.write_bytes(lake.read(key))
        found = _read_map(path, scan.geometry)
    said = f"anatomy by {segmenter.tool} {segmenter.version}, task {segmenter.task}{', fast' * segmenter.fast}"
    anatomy = _joined(scan.anatomy, found)
    return replace(scan, anatomy=anatomy, anatomy_kind="full", findings=(*scan.findings, said))


def segment(scan: Volume, segmenter: Segmenter, tool: Tool) -> NDArray[np.uint8]:
    """The class ids that the tool finds in a volume, which is not kept.

    Raises:
        ToolError: it failed, or its map does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="meddiff-segmenter-") as folder:
        path = Path(folder) / "anatomy.nii.gz"
        run_tool(tool, segmenter, scan, path)
        return _read_map(path, scan.geometry)


def _read_map(path: Path, geometry: Geometry) -> NDArray[np.uint8]:
    """The tool's map on the scan's grid.

    Raises:
        ToolError: it lies on another grid, or holds ids that the task does not have.
    """
    try:
        values = whole_values(str(path), geometry, lambda name: read_raster([name]), [])
    except CaseError as error:
        raise ToolError(f"the segmentation cannot be used: {error}") from error
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < BACKGROUND or high >= BODY:
        raise ToolError(f"the segmentation holds ids from {low} to {high}; the task's are 1 to {BODY - 1}")
    return values.astype(np.uint8)


def _joined(own: NDArray[np.uint8] | None, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What was found, but for the organs that the source names: of those it has the only say."""
    if own is None:
        return found
    named = (own > BACKGROUND) & (own < BODY)
    joined = np.where(np.isin(found, np.unique(own[named])), np.uint8(BACKGROUND), found)
    np.copyto(joined, own, where=named)
    return joined
